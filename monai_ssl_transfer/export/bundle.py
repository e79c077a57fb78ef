"""A finished run handed out as a MONAI bundle that needs nothing of this package for inference."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.data import save_net_with_metadata

from monai_ssl_transfer.errors import ExportError
from monai_ssl_transfer.export.archive import publish, write_zip
from monai_ssl_transfer.export.configs import merged_inference, merged_train
from monai_ssl_transfer.export.licences import CARD, Provenance, provenance
from monai_ssl_transfer.export.metadata import exported_metadata
from monai_ssl_transfer.export.network_facts import NetworkFacts, network_facts
from monai_ssl_transfer.export.readme import UNMEASURED, ReadmeFacts, filled_readme
from monai_ssl_transfer.export.run_folder import (
    ENCODER,
    ENCODER_FOLDER,
    Evaluation,
    FinishedRun,
    read_evaluation,
    read_run,
)
from monai_ssl_transfer.export.source_closure import SourceClosure
from monai_ssl_transfer.export.vendored import without_package, write_scripts
from monai_ssl_transfer.installation import project_folder

logger = logging.getLogger(__name__)

_AS_THEY_ARE = ("evaluate.json", "multi_gpu_train.json", "logging.conf")
_MUST_AGREE = ("image_size", "pixel_spacing", "channels", "task")
_VERSION = re.compile(r"\d\.\d\.\d")


@dataclass(frozen=True)
class ExportOptions:
    """How a run is handed out.

    Args:
        evaluation: folder of the evaluation; ``None`` takes ``eval`` in the run.
        version: of the exported bundle; "" takes the bundle's own.
        zip: also write ``<name>_v<version>.zip``.
        unmeasured: hand out a model of which nothing is measured.
        licence_allows_redistribution: the user states the right to hand on restricted weights.
        overwrite: replace an earlier export.
    """

    evaluation: str | Path | None = None
    version: str = ""
    zip: bool = False
    unmeasured: bool = False
    licence_allows_redistribution: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class _Parts:
    """All that is written, known before anything is written."""

    run: FinishedRun
    train: dict[str, Any]
    inference: dict[str, Any]
    closure: SourceClosure
    metadata: dict[str, Any]
    facts: NetworkFacts
    evaluation: Evaluation | None
    origin: Provenance


def export_bundle(name: str, run: str | Path, out: str | Path, options: ExportOptions | None = None) -> Path:
    """Make a self-contained bundle of a finished run.

    Args:
        name: of the bundle that was run, such as "ct_liver_segmentation".
        run: ``output_dir`` of the training.
        out: folder that the bundle's folder (and its zip) goes into.
        options: see ``ExportOptions``.

    Returns:
        The bundle's folder, ``out/name``.

    Raises:
        ExportError: the run is incomplete or of another bundle, nothing is measured, a licence forbids it, or the
            target is there already or cannot be written.
    """
    options = options or ExportOptions()
    source = _source(name)
    parts = _collect(name, source, read_run(run), options)
    target = Path(out) / name
    archive = Path(out) / f"{name}_v{parts.metadata['version']}.zip"
    if options.zip and archive.exists() and not options.overwrite:
        raise ExportError(
            f"{archive} is there already: choose another --out or --version, or replace it with --overwrite."
        )
    publish(target, lambda folder: _write(name, source, folder, parts), options.overwrite)
    if options.zip:
        write_zip(target, archive)
    logger.info("%s is in %s", name, target)
    return target


def _source(name: str) -> Path:
    folder = project_folder() / "bundles"
    if not (folder / name / "configs").is_dir():
        known = ", ".join(sorted(one.name for one in folder.iterdir() if (one / "configs").is_dir()))
        raise ExportError(f"there is no bundle {name}: choose one of {known}.")
    return folder / name


def _collect(name: str, source: Path, run: FinishedRun, options: ExportOptions) -> _Parts:
    template = ConfigParser.load_config_file(source / "configs" / "metadata.json")
    _check_bundle(name, source, run)
    number = options.version or template["version"]
    if not _VERSION.fullmatch(number):
        raise ExportError(
            f"version '{number}' is not three digits such as 0.1.0: MONAI compares versions as text, so give --version "
            "with one digit in each place."
        )
    origin = provenance(run, options.licence_allows_redistribution)
    evaluation = read_evaluation(run, options.evaluation)
    if evaluation is None and not options.unmeasured:
        raise ExportError(f"{UNMEASURED.rstrip('.')}, or hand it out as it is with --unmeasured.")
    train = merged_train(source / "configs", run.config)
    inference = merged_inference(source / "configs", train)
    for setting in _MUST_AGREE:
        if setting not in inference:  # the size of a training crop, for instance
            continue
        if evaluation is not None and evaluation.settings.get(setting, train.get(setting)) != train.get(setting):
            raise ExportError(
                f"the evaluation used {setting} {evaluation.settings[setting]} but the training {train.get(setting)}: "
                "evaluate again with the settings of the training."
            )
    card = {"encoder_weights": str(run.folder / ENCODER)} if run.pretraining else {}
    facts = network_facts(inference | card, run.state(), str(run.weights))
    # an encoder bundle reads folders of scans: its code would be half of the package, so it requires the package
    alone, closure = (inference, SourceClosure()) if run.pretraining else without_package(inference)
    # where inference reads them from the encoder's card
    known = {setting: train[setting] for setting in _MUST_AGREE if setting in inference and setting in train}
    metadata = exported_metadata(template, inference | known, facts, evaluation, origin, closure.libraries(), number)
    return _Parts(run, train, alone, closure, metadata, facts, evaluation, origin)


def _check_bundle(name: str, source: Path, run: FinishedRun) -> None:
    """A run names its bundle only in its ``bundle_root``, which may be anything: its settings must be the bundle's."""
    wanted = ConfigParser.load_config_file(source / "configs" / "train.json")
    missing = sorted(wanted.keys() - run.config.keys())
    root = Path(str(run.config.get("bundle_root", ""))).name
    if missing or (root != name and (source.parent / root / "configs").is_dir()):
        raise ExportError(
            f"{run.folder} is a run of {root or 'another bundle'}, not of {name}"
            + (f" (it has no setting {missing[0]})" if missing else "")
            + ": give the bundle that was trained."
        )


def _write(name: str, source: Path, folder: Path, parts: _Parts) -> None:
    configs, models, docs = (folder / one for one in ("configs", "models", "docs"))
    for one in (configs, models, docs):
        one.mkdir()
    for file in _AS_THEY_ARE:
        if (source / "configs" / file).is_file():
            shutil.copyfile(source / "configs" / file, configs / file)
    for file, content in (("train", parts.train), ("inference", parts.inference), ("metadata", parts.metadata)):
        (configs / f"{file}.json").write_text(_json(content), encoding="utf-8")
    shutil.copyfile(parts.run.weights, models / "model.pt")
    if parts.run.pretraining:  # with its card, for transfer; a second .pt in models would confuse MONAI Label
        (folder / ENCODER_FOLDER).mkdir()
        for file in (ENCODER, CARD, "projection_head.safetensors"):
            if (parts.run.folder / file).is_file():
                shutil.copyfile(parts.run.folder / file, folder / ENCODER_FOLDER / file)
    if parts.facts.script is not None:
        kept = {one: parts.metadata[one] for one in ("version", "network_data_format")}
        path, script = str(models / "model.ts"), parts.facts.script
        save_net_with_metadata(script, path, include_config_vals=False, append_timestamp=False, meta_values=kept)
    if parts.closure.wanted:
        write_scripts(parts.closure, folder)
    shutil.copyfile(source / "LICENSE", folder / "LICENSE")
    (docs / "data_license.txt").write_text(_data_licence(parts), encoding="utf-8")
    (docs / "provenance.json").write_text(_json(parts.origin.to_json()), encoding="utf-8")
    facts = ReadmeFacts(name, parts.train, parts.inference, parts.metadata, parts.facts, parts.evaluation, parts.origin)
    template = (source / "docs" / "README.md").read_text(encoding="utf-8")
    (docs / "README.md").write_text(filled_readme(template, facts), encoding="utf-8")


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=4, ensure_ascii=False) + "\n"


def _data_licence(parts: _Parts) -> str:
    pretrained = parts.origin.sentences()
    return (
        f"Training data: {parts.metadata.get('data_source', 'unknown')}.\n"
        "No data come with this bundle. The licence of the data that the model was trained on also binds its weights, "
        "as far as the law of your country says so.\n\n"
        "Weights that the training began with:\n" + "\n".join(f"- {line}" for line in pretrained) + "\n"
    )
