"""A finished run handed out as a MONAI bundle that needs nothing of this package for inference."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_ssl_transfer.errors import ExportError
from monai_ssl_transfer.export.archive import publish, refuse_existing, write_zip
from monai_ssl_transfer.export.configs import merged_inference, merged_train
from monai_ssl_transfer.export.licences import provenance
from monai_ssl_transfer.export.metadata import exported_metadata
from monai_ssl_transfer.export.network_facts import network_facts
from monai_ssl_transfer.export.readme import UNMEASURED
from monai_ssl_transfer.export.run_folder import ENCODER, FinishedRun, read_evaluation, read_json, read_run
from monai_ssl_transfer.export.source_closure import SourceClosure
from monai_ssl_transfer.export.statements import Statements
from monai_ssl_transfer.export.vendored import without_package
from monai_ssl_transfer.export.writing import Parts, write_bundle
from monai_ssl_transfer.installation import project_folder

logger = logging.getLogger(__name__)

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
        stated: what the person who exports says of authors, training data and use.
    """

    evaluation: str | Path | None = None
    version: str = ""
    zip: bool = False
    unmeasured: bool = False
    licence_allows_redistribution: bool = False
    overwrite: bool = False
    stated: Statements = field(default_factory=Statements)


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
    template = ConfigParser.load_config_file(source / "configs" / "metadata.json")
    number = _checked_version(options.version or template["version"])
    target = Path(out) / name
    archive = archive_of(target, number)
    refuse_existing(target, options.overwrite)
    if options.zip:
        refuse_existing(archive, options.overwrite)
    parts = _collect(name, source, read_run(run), options, template | {"version": number})
    if parts.run.unfinished:
        logger.warning("%s: %s of %s epochs were run; the README says so", parts.run.folder, *parts.run.epochs)
    publish(target, lambda folder: write_bundle(name, source, folder, parts), options.overwrite)
    if options.zip:
        write_zip(target, archive)
    logger.info("%s is in %s", name, target)
    return target


def archive_of(folder: Path, version: str = "") -> Path:
    """Where the zip of an exported bundle is.

    Args:
        folder: of the bundle.
        version: of it; "" reads it there.
    """
    version = version or read_json(folder / "configs" / "metadata.json")["version"]
    return folder.with_name(f"{folder.name}_v{version}.zip")


def _checked_version(number: str) -> str:
    if not _VERSION.fullmatch(number):
        raise ExportError(
            f"version '{number}' is not three digits such as 0.1.0: MONAI compares versions as text, so give --version "
            "with one digit in each place."
        )
    return number


def _source(name: str) -> Path:
    folder = project_folder() / "bundles"
    if not (folder / name / "configs").is_dir():
        known = ", ".join(sorted(one.name for one in folder.iterdir() if (one / "configs").is_dir()))
        raise ExportError(f"there is no bundle {name}: choose one of {known}.")
    return folder / name


def _collect(name: str, source: Path, run: FinishedRun, options: ExportOptions, template: dict[str, Any]) -> Parts:
    _check_bundle(name, source, run)
    evaluation = read_evaluation(run, options.evaluation)
    if evaluation is None and not options.unmeasured:
        raise ExportError(f"{UNMEASURED.rstrip('.')}, or hand it out as it is with --unmeasured.")
    origin = provenance(run, options.licence_allows_redistribution)
    options.stated.require_right(options.licence_allows_redistribution)
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
    metadata = exported_metadata(
        template, inference | known, facts, evaluation, origin, closure.libraries(), options.stated
    )
    own = ConfigParser.load_config_file(source / "configs" / "train.json")
    return Parts(run, train, alone, closure, metadata, facts, evaluation, origin, own, options.stated)


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
