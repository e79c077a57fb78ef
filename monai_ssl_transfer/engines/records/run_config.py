"""The configuration that is being run: found from inside of it, as text and as computed values."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.bundle import ConfigParser

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.engines.checkpoints.fingerprint import file_hash
from monai_ssl_transfer.engines.records.evaluated_cases import evaluated_cases
from monai_ssl_transfer.errors import TrainingError

CONFIG_FILE = "config.json"
EVALUATED_FILE = "evaluated.json"
_MEASURED_WITH = ("evaluate_part", "image_size", "pixel_spacing", "channels", "precision", "task")
_NO_SETTINGS = ("imports", "initialize", "run", "finalize")
_LONGEST = 300


def running_parser() -> ConfigParser | None:
    """The parser that is creating the caller, or ``None`` when the caller is created by plain Python.

    A component of a bundle's configuration gets its own arguments and never sees the whole: MONAI hands the parser to
    nobody, the overrides of the command line live only in it, and ``ConfigWorkflow``'s own export (``tracking``) has to
    be asked for on each command line. But whatever a configuration creates is created by a method of its parser, which
    therefore is among the callers; that holds for ``python -m monai.bundle run`` as for a ``ConfigWorkflow`` in Python.
    """
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigParser):
            return owner
        frame = frame.f_back
    return None


def config_text(parser: ConfigParser) -> str:
    """The merged configuration as JSON that ``python -m monai.bundle run --config_file`` takes.

    The settings that the list "settled" names are written as they were computed: they come from the data set, which is
    not there when the run is used elsewhere.

    Args:
        parser: of the run; values that were set from Python and that JSON does not know are written as text.
    """
    config = {name: value for name, value in parser.get().items() if name != ConfigParser.meta_key}
    for name in config.get("settled") or ():
        if name in parser.ref_resolver.resolved_content:
            config[name] = parser.ref_resolver.resolved_content[name]
    return json.dumps(config, indent=2, default=str) + "\n"


def keep_config(folder: str | Path) -> None:
    """Write the merged configuration of this run to ``config.json``; bundles call this in ``initialize``.

    Args:
        folder: the run's ``output_dir``; only the first process writes.

    Raises:
        TrainingError: when the folder cannot be written.
    """
    parser = running_parser()
    if parser is None or idist.get_rank() > 0:
        return
    try:
        write_durably(Path(folder) / CONFIG_FILE, lambda file: file.write(config_text(parser).encode()))
    except OSError as error:
        raise TrainingError(
            f"{CONFIG_FILE} could not be written into {folder} ({error.strerror}): free space there or choose another "
            "--output_dir."
        ) from error


def keep_evaluation(model_file: str | Path, folder: str | Path) -> None:
    """Write which weights an evaluation judged, and on which cases, to ``evaluated.json``: its figures stay with them.

    Args:
        model_file: the state dict that was judged.
        folder: the evaluation's ``output_dir``; only the first process writes.

    Raises:
        TrainingError: when the folder cannot be written.
    """
    parser = running_parser()
    if idist.get_rank() > 0:
        return
    settings = {} if parser is None else parser.get()
    used = {name: settings[name] for name in _MEASURED_WITH if isinstance(settings.get(name), str | int | float)}
    computed = {} if parser is None else parser.ref_resolver.resolved_content
    record = {"model_sha256": file_hash(model_file), **used, "evaluated": evaluated_cases(settings, computed)}
    text = json.dumps(record, indent=2) + "\n"
    try:
        write_durably(Path(folder) / EVALUATED_FILE, lambda file: file.write(text.encode()))
    except OSError as error:
        raise TrainingError(
            f"{EVALUATED_FILE} could not be written into {folder} ({error.strerror}): free space there and evaluate "
            "again."
        ) from error


def resolved_values(parser: ConfigParser) -> dict[str, Any]:
    """The top-level settings as the run computed them.

    Nothing is computed here: a setting that the run never asked for could be an object that does something.

    Args:
        parser: of the run, after it has made the trainer.

    Returns:
        Names to plain values; an object is named by its class, a dataclass is a dictionary of its fields. Sections
        (dictionaries and lists with objects in them) and expressions that nothing asked for are left out.
    """
    resolved = parser.ref_resolver.resolved_content
    found = {}
    for name, raw in parser.get().items():
        if name.startswith("_") or name in _NO_SETTINGS:
            continue
        try:
            found[name] = _plain(resolved[name]) if name in resolved else _plain_setting(raw)
        except _NotPlainError:
            continue
    return found


class _NotPlainError(Exception):
    """A value that says nothing as text."""


def _plain_setting(raw: Any) -> Any:
    """A setting as it is written, unless it would have to be computed."""
    if isinstance(raw, str) and raw.startswith(("$", "@", "%")):
        raise _NotPlainError
    if isinstance(raw, dict):
        if "_target_" in raw:
            raise _NotPlainError
        return {str(name): _plain_setting(value) for name, value in raw.items()}
    return [_plain_setting(value) for value in raw] if isinstance(raw, list) else _plain(raw)


def _plain(value: Any, nested: bool = False) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST:
        return value[:_LONGEST] + "…"  # the text of a whole network, in a fingerprint
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path | torch.device | torch.dtype):
        return str(value)
    if isinstance(value, dict):
        return {str(name): _plain(one, nested=True) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, nested=True) for one in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), nested=True) for field in dataclasses.fields(value)}
    if nested or isinstance(value, ModuleType):
        raise _NotPlainError
    return f"{type(value).__module__}.{type(value).__qualname__}"
