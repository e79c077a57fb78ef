"""A plan's steps and cells as what their jobs take: plain values with whole paths, and the identity of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_ssl_transfer import __version__
from monai_ssl_transfer.errors import StudyError
from monai_ssl_transfer.installation import project_folder
from monai_ssl_transfer.study.planning.identity import (
    CODE,
    Identity,
    hash_of,
    hash_of_code,
    hash_of_files,
    hash_of_folder,
)
from monai_ssl_transfer.study.planning.matrix import (
    DATA_STEP,
    DataStep,
    Initialisation,
    PlannedCell,
    StudyPlan,
    Task,
    slug,
)

Spec = dict[str, Any]
CONTENT = "content"


class Specs:
    """What the jobs of one study take.

    Args:
        plan: the study.
        out: its folder.
        any_code: whether what another code of the package made is taken as it is.

    Raises:
        StudyError: data steps refer to each other in a circle.
    """

    def __init__(self, plan: StudyPlan, out: Path, any_code: bool = False) -> None:
        self.plan = plan
        self.out = out.absolute()
        self.any_code = any_code
        self._program = {"version": __version__, CODE: hash_of_code()}
        # what code other than this one has prepared is of no use
        self._cache = self.out / "cache" / self._program[CODE][:12]
        self._folders: dict[str, str] = {}
        self._steps: dict[str, Identity] = {}
        self._weights: dict[Path, str] = {}

    def data_step(self, step: DataStep, within: tuple[str, ...] = ()) -> Spec:
        """Return the arguments of `data_steps.make_data`."""
        if step.name in within:
            raise StudyError(f"{self.plan.file}: the data step '{step.name}' waits for itself: undo that.")
        within = (*within, step.name)
        held_out = {name: self._held_out(self.plan.tasks[name], within) for name in step.leave_out}
        identity = {
            "kind": step.kind,
            "options": hash_of(dict(step.options)),
            "sources": hash_of([self._data_identity(one, within) for one in step.sources]),
            "left out": hash_of([one["identity"] for one in held_out.values()]),
            **self._program,
        }
        return {
            "folder": str(self.out / "data" / slug(step.name)),
            "kind": step.kind,
            "sources": [self.folder(one) for one in step.sources],
            "options": dict(step.options),
            "held_out": {slug(name): one for name, one in held_out.items()},
            "identity": identity,
            "any_code": self.any_code,
        }

    def pretraining(self, start: Initialisation) -> Spec:
        """Return the arguments of `pretraining_run.run_pretraining`.

        Raises:
            StudyError: the initialisation has none.
        """
        run = start.pretraining
        if run is None:
            raise StudyError(f"the initialisation '{start.name}' has no pretraining: give it one.")
        files = [_bundle_file(run.bundle, "train.json"), *run.overlays, _encoder_overlay(start.encoder)]
        files = [one for one in files if one]
        settings = {"knn_interval": 0, **run.settings}
        identity = {
            "configuration": hash_of_files(files),
            "settings": hash_of(settings),
            "data": self._data_identity(run.data),
            **self._program,
        }
        return {
            "folder": str(self.out / "pretraining" / slug(start.name)),
            "files": files,
            "settings": {**settings, "dataset_dir": self.folder(run.data)},
            "identity": identity,
            "any_code": self.any_code,
        }

    def encoder_file(self, start: Initialisation) -> Path | None:
        """Where the weights of an initialisation are, or will be; None for random ones."""
        if start.pretraining is not None:
            return self.out / "pretraining" / slug(start.name) / "encoder.safetensors"
        return None if start.weights is None else Path(start.weights)

    def cell(self, cell: PlannedCell) -> Spec:
        """Return the arguments of `cell_run.run_cell`; the weights and the data must be there."""
        task, protocol = self.plan.tasks[cell.task], self.plan.protocols[cell.protocol]
        start = self.plan.initialisations[cell.initialisation]
        weights = self.encoder_file(start)
        data = [self.folder(one) for one in task.data]
        settings = self._settings(task, data) | ({} if protocol.probe else dict(protocol.settings))
        settings |= dict(start.settings)
        settings |= {
            "encoder_weights": None if weights is None else str(weights),
            "label_fraction": cell.fraction,
            "seed": cell.seed,
        }
        network = "" if protocol.probe else task.networks[start.encoder]
        settings |= _encoder_of_network(network, start.encoder)
        overlays = [*([network] if network else []), *task.overlays, *protocol.overlays]
        files = [_bundle_file(task.bundle, "train.json"), *overlays]
        training = {
            "configuration": hash_of_files(files),
            "settings": hash_of({name: one for name, one in settings.items() if name not in _PLACES}),
            "protocol": hash_of([protocol.probe, dict(protocol.settings), protocol.average]),
            "data": hash_of([self._data_identity(one) for one in task.data]),
            "weights": f"random {start.encoder}" if weights is None else self._weights_hash(weights),
            **self._program,
        }
        evaluate = _bundle_file(task.bundle, "evaluate.json")
        robustness = None if task.robustness is None or protocol.probe else dict(task.robustness)
        judged = {
            "evaluation": hash_of([dict(task.evaluation), hash_of_files([evaluate])]),
            "robustness": hash_of(robustness and [robustness, hash_of_files(_robustness_files())]),
        }
        return {
            "folder": str(self.out / "cells" / cell.id),
            "cell": {key: getattr(cell, key) for key in _CELL_KEYS},
            "kind": "probe" if protocol.probe else "bundle",
            "bundle": task.bundle,
            "files": files,
            "overlays": list(task.overlays),
            "evaluate": evaluate,
            "metadata": _bundle_file(task.bundle, "metadata.json"),
            "settings": settings,
            "evaluation": dict(task.evaluation),
            "robustness": robustness,
            "data": data,
            "encoder": {"name": start.name, "architecture": start.encoder, "file": settings["encoder_weights"]},
            "probe": protocol.probe,
            "probe_settings": dict(protocol.settings) if protocol.probe else {},
            "average": protocol.average,
            "cache": str(self._cache / "embeddings"),
            "training_identity": training,
            "identity": {**training, **judged},
            "any_code": self.any_code,
        }

    def embedding(self, task: Task, starts: Sequence[Initialisation]) -> Spec:
        """Return what the jobs on embeddings of a task take; the weights and the data must be there."""
        data = [self.folder(one) for one in task.data]
        files = {one.name: self.encoder_file(one) for one in starts}
        settings = {**_same_cases(task), **task.settings}
        identity = {
            "configuration": hash_of_files([_bundle_file(task.bundle, "train.json"), *task.overlays]),
            "settings": hash_of(settings),
            "data": hash_of([self._data_identity(one) for one in task.data]),
            "weights": hash_of([(one.name, one.encoder, self._weights_hash(files[one.name])) for one in starts]),
            "seed": self.plan.seeds[0],
            **self._program,
        }
        return {
            "task": task.name,
            "bundle": task.bundle,
            "overlays": list(task.overlays),
            "settings": settings,
            "data": data,
            "cache": str(self._cache / "embeddings"),
            "seed": self.plan.seeds[0],
            "encoders": [
                {
                    "name": one.name,
                    "architecture": one.encoder,
                    "file": str(files[one.name]) if files[one.name] else None,
                }
                for one in starts
            ],
            "identity": identity,
            "any_code": self.any_code,
        }

    def folder(self, text: str) -> str:
        """Return a folder of data; "data:NAME/below" is within the folder of a step."""
        if not text.startswith(DATA_STEP):
            return text
        name, _, below = text[len(DATA_STEP) :].partition("/")
        if name not in self.plan.data:
            raise StudyError(f"{self.plan.file} names the data step '{name}', which 'data' does not declare: add it.")
        return str(self.out / "data" / slug(name) / CONTENT / below)

    def _settings(self, task: Task, data: list[str]) -> dict[str, Any]:
        settings = {**_same_cases(task), **task.settings, "dataset_dir": data if len(data) > 1 else data[0]}
        if '"cache_dir"' in Path(_bundle_file(task.bundle, "train.json")).read_text(encoding="utf-8"):
            settings.setdefault("cache_dir", str(self._cache / slug(task.name)))
        return settings

    def _held_out(self, task: Task, within: tuple[str, ...]) -> Spec:
        files = [_bundle_file(task.bundle, "train.json"), *task.overlays]
        data = [self._data_identity(one, within) for one in task.data]
        settings = self._settings(task, [self.folder(one) for one in task.data])
        plain = {name: one for name, one in settings.items() if name not in _PLACES}
        identity = hash_of([hash_of_files(files), plain, data])
        return {"files": files, "settings": settings, "identity": identity}

    def _data_identity(self, text: str, within: tuple[str, ...] = ()) -> str:
        """Of a step, its own identity: making it again gives the same; of a folder, what lies in it."""
        if not text.startswith(DATA_STEP):
            if text not in self._folders:
                self._folders[text] = hash_of_folder(text)
            return self._folders[text]
        name, _, below = text[len(DATA_STEP) :].partition("/")
        if name not in self._steps:
            self.folder(text)  # refuses unknown ones
            self._steps[name] = self.data_step(self.plan.data[name], within)["identity"]
        return hash_of([self._steps[name], below])

    def _weights_hash(self, file: Path | None) -> str:
        """Read a file once for all the cells that start from it; it is asked for only when it is finished."""
        if file is None:
            return "random"
        if file not in self._weights:
            self._weights[file] = hash_of_files([file]) if file.is_file() else _hash_of_encoder(file)
        return self._weights[file]


_CELL_KEYS = ("study", "task", "initialisation", "protocol", "fraction", "seed")
_PLACES = ("dataset_dir", "encoder_weights", "cache_dir")
"""Settings that say where something lies: what lies there is part of the identity instead."""


def _bundle_file(bundle: str, name: str) -> str:
    return str(project_folder() / "bundles" / bundle / "configs" / name)


def _robustness_files() -> list[Path]:
    return sorted((project_folder() / "configs" / "robustness").glob("*.json"))


def _same_cases(task: Task) -> dict[str, Any]:
    """Fix the division where the bundle with the task's overlays draws it by the seed: the same cases for all."""
    import yaml

    drawn_by = None
    for file in (_bundle_file(task.bundle, "train.json"), *task.overlays):
        read = json.loads if file.endswith(".json") else yaml.safe_load
        drawn_by = read(Path(file).read_text(encoding="utf-8")).get("split_seed", drawn_by)
    return {"split_seed": 0} if drawn_by == "@seed" else {}


def _encoder_overlay(encoder: str) -> str:
    file = project_folder() / "configs" / "encoders" / f"{encoder}.json"
    return str(file) if file.is_file() else ""


def _encoder_of_network(network: str, encoder: str) -> dict[str, Any]:
    """What turns a network's overlay into that of another encoder of its family."""
    if not network:
        return {}
    built = json.loads(Path(network).read_text(encoding="utf-8")).get("network_def", {})
    return {"network_def#encoder": encoder} if built.get("encoder", encoder) != encoder else {}


def _hash_of_encoder(file: Path) -> str:
    from monai_ssl_transfer.engines.checkpoints.fingerprint import file_hash

    return str(file_hash(file))
