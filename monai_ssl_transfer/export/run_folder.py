"""A finished run as the export reads it: weights, merged configuration, evaluation, and where its encoder came from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_ssl_transfer.data.images.class_record import recorded_classes
from monai_ssl_transfer.engines.checkpoints.fingerprint import file_hash
from monai_ssl_transfer.engines.records.run_config import CONFIG_FILE, EVALUATED_FILE
from monai_ssl_transfer.errors import ExportError
from monai_ssl_transfer.weights import encoder_facts

ENCODER_RECORD = "encoder_load.json"
SUMMARY = "summary.json"
ENCODER = "encoder.safetensors"
ENCODER_FOLDER = "encoder"
VALIDATIONS = "validation.jsonl"
_SCORES = "evaluation.json"


@dataclass(frozen=True)
class FinishedRun:
    """What a run left behind.

    Args:
        folder: its ``output_dir``.
        config: the merged configuration.
        weights: file with the plain state dict.
        encoder: where its encoder started, as ``initialise_encoder`` wrote it; ``None`` for an older run.
    """

    folder: Path
    config: dict[str, Any]
    weights: Path
    encoder: dict[str, Any] | None

    @cached_property
    def card(self) -> dict[str, Any]:
        """The card inside of the encoder of a pretraining; a loose ``encoder.json`` may be of anything."""
        return json.loads(encoder_facts(self.folder / ENCODER).card.to_json())

    @cached_property
    def epochs(self) -> tuple[int | None, int | None]:
        """How many epochs were run, up to the last validation, and how many were asked for; None if unknown."""
        if self.pretraining:
            method = self.card.get("method", {})
            return method.get("epochs"), method.get("of_epochs")
        asked = self.config.get("epochs")
        if not isinstance(asked, int) or not (self.folder / VALIDATIONS).is_file():
            return None, None
        lines = (self.folder / VALIDATIONS).read_text(encoding="utf-8").splitlines()
        try:
            last = int(json.loads(lines[-1])["epoch"])
        except (IndexError, KeyError, TypeError, ValueError):
            return None, asked
        interval = self.config.get("val_interval", 1)
        # epochs after the last validation are none that a finished run lacks
        return asked if last + (interval if isinstance(interval, int) else 1) > asked else last, asked

    @property
    def unfinished(self) -> bool:
        """Whether it had epochs left to go."""
        done, asked = self.epochs
        return done is not None and asked is not None and done < asked

    @property
    def pretraining(self) -> bool:
        """Whether it made an encoder, not a task model."""
        return "method_name" in self.config

    def state(self) -> dict[str, Tensor]:
        """The tensors of the network.

        Raises:
            ExportError: the file is damaged or holds something else.
        """
        try:
            state = torch.load(self.weights, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever the damage leads to
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ExportError(
                f"{self.weights} cannot be read as plain weights ({reason}): train again or name another run."
            ) from error
        if not isinstance(state, dict) or not all(isinstance(one, Tensor) for one in state.values()):
            raise ExportError(f"{self.weights} is not a plain state dict: give the folder of a training run.")
        return state


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation of a run found.

    Args:
        summary: of ``summary.json``.
        settings: how it was measured, of ``evaluated.json``.
        cases: which cases it judged (``engines.records.evaluated_cases``); empty for an older evaluation.
    """

    summary: dict[str, Any]
    settings: dict[str, Any]
    cases: dict[str, Any] = field(default_factory=dict)

    def on_what(self) -> str:
        """Which cases the figures are of, in a sentence."""
        if "store" in self.cases:
            return self.cases["store"]
        number, trained, validated = (self.cases.get(key) for key in ("cases", "in_training", "in_validation"))
        part = self.cases.get("part")
        if number is None:
            return "Which cases these are is not recorded: evaluate again with this version."
        said = f"Measured on {number} cases"
        if trained is None:
            return f"{said} ({part}); whether the model was trained on them is not recorded."
        if trained:
            return (
                f"{said} ({part}) of another folder than that of the training, of which {trained} have the name of a "
                "training case: whoever exported must know that they are others."
            )
        if validated == number:
            return f"{said}: the part (validation) that chose the epoch, so the figures are somewhat too good."
        if validated:
            return f"{said} ({part}), of which {validated} also chose the epoch; none was trained on."
        return f"{said} ({part}), held out: the run neither trained on them nor chose its epoch by them."


def read_run(folder: str | Path) -> FinishedRun:
    """Read the folder of a training run.

    Args:
        folder: its ``output_dir``, or the ``model.pt`` in it.

    Raises:
        ExportError: no such run, or one without configuration or weights.
    """
    path = Path(folder)
    if path.is_file():
        path = path.parent.parent if path.parent.name == "models" else path.parent
    if not path.is_dir():
        raise ExportError(f"there is no run at {path}: give the output_dir of a training with --weights.")
    if not (path / CONFIG_FILE).is_file():
        raise ExportError(
            f"{path} has no {CONFIG_FILE}, so its settings are unknown: give the output_dir of a finished training, or "
            "train again with this version."
        )
    config = read_json(path / CONFIG_FILE)
    recorded = recorded_classes(path)  # classes that were read from the names of folders
    if recorded is not None:
        config |= {"class_names": recorded["class_names"], "classes": recorded["class_names"]}
    name = "model.pt" if "method_name" in config else "models/model.pt"
    if not (path / name).is_file():
        raise ExportError(f"{path} has no {name}: wait for the first validation of the run, or name another run.")
    if "method_name" in config and not (path / ENCODER).is_file():
        raise ExportError(f"{path} has no {ENCODER}: wait for the first epoch of the pretraining, or name another run.")
    record = path / ENCODER_RECORD
    return FinishedRun(path, config, path / name, read_json(record) if record.is_file() else None)


def read_evaluation(run: FinishedRun, folder: str | Path | None) -> Evaluation | None:
    """Read what was measured of exactly these weights.

    Args:
        run: whose weights were judged.
        folder: of the evaluation; ``None`` takes ``eval`` in the run.

    Returns:
        ``None`` if there is none and none was named.

    Raises:
        ExportError: the named folder has no summary, or the evaluation is of other weights.
    """
    if run.pretraining:
        return _scores(run, Path(folder or run.folder), named=folder is not None)
    path = _folder(run.folder / "eval" if folder is None else Path(folder))
    if not (path / SUMMARY).is_file():
        if folder is None:
            return None
        raise ExportError(f"{path} has no {SUMMARY}: give the output_dir of an evaluation with --evaluation.")
    if not (path / EVALUATED_FILE).is_file():
        raise ExportError(
            f"{path} does not say which weights it judged (no {EVALUATED_FILE}): evaluate the run again with this "
            "version's evaluate.json."
        )
    settings = read_json(path / EVALUATED_FILE)
    if settings.pop("model_sha256", None) != file_hash(run.weights):
        raise ExportError(f"{path} judged other weights than {run.weights}: evaluate that model, then export it again.")
    cases = settings.pop("evaluated", None) or {}
    if settings.get("evaluate_part") == "train" or (cases.get("in_training") and cases.get("same_folder") is not False):
        raise ExportError(
            f"{path} judged cases that the run was trained on, which says nothing of its performance: evaluate the "
            "part 'test', or other cases."
        )
    settings.pop("evaluate_part", None)
    return Evaluation(read_json(path / SUMMARY), settings, cases)


def _folder(path: Path) -> Path:
    """The folder of an evaluation, also when one of its files is named."""
    return path.parent if path.is_file() else path


def _scores(run: FinishedRun, folder: Path, named: bool) -> Evaluation | None:
    """What kNN found of the encoder of a pretraining."""
    folder = _folder(folder)
    file = folder / _SCORES
    if not file.is_file():
        if named:
            raise ExportError(f"{folder} has no {_SCORES}: give the output_dir of an evaluation with --evaluation.")
        return None
    scores = read_json(file)
    if scores.pop("encoder_sha256", None) != file_hash(run.folder / ENCODER):
        raise ExportError(
            f"{file} judged another encoder than {run.folder / ENCODER}: evaluate that one, then export it again."
        )
    store = scores.pop("store", None)
    where = "a store that is not recorded" if store is None else "another store than that of the pretraining"
    if store is not None and store == run.card.get("source_hash"):
        where = "the store of the pretraining, whose images the encoder has seen without their labels"
    return Evaluation(scores, {}, {"store": f"kNN over {where}; neighbours are of other patients."})


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ExportError: the file is damaged.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{file} cannot be read ({error}): it is damaged, so write it again.") from error
    if not isinstance(content, dict):
        raise ExportError(f"{file} holds no JSON object: it is damaged, so write it again.")
    return content
