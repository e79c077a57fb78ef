"""What ``dataset.json`` says of a data set (Medical Segmentation Decathlon, AMOS, nnU-Net), and what a run kept of it.

Inference on other people's files and an evaluation elsewhere have no ``dataset.json``, so that a run writes the values
into its ``config.json`` (`engines.records.run_config`), and they are read there first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ssl_transfer.errors import DataError

DESCRIPTION = "dataset.json"
_RUN_CONFIG = "config.json"


@dataclass(frozen=True)
class Description:
    """A ``dataset.json``.

    Args:
        file: where it is.
        labels: label value by name, without the background.
        modalities: name of every modality, in the order of the file's volumes.
        parts: the entries of "training", "validation" and "test".
    """

    file: Path
    labels: dict[str, int]
    modalities: tuple[str, ...]
    parts: dict[str, list[Any]]


def read_description(dataset_dir: str | Path) -> Description:
    """Read ``dataset.json`` of a data set.

    Args:
        dataset_dir: folder of the data set.

    Raises:
        DataError: there is none, or it is damaged.
    """
    file = Path(dataset_dir) / DESCRIPTION
    if not file.is_file():
        raise DataError(f"there is no {file}: give the folder of the data set that holds it with --dataset_dir.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        parts = {part: list(content.get(part, [])) for part in ("training", "validation", "test")}
        modalities = _in_order(content.get("modality", content.get("channel_names", {})))
        labels = _values(content.get("labels", {}))
        if not isinstance(content["training"], list):
            raise TypeError("training is no list")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} is not the description of a data set (a JSON object with training, labels and modality): repair "
            f"or remove it ({error!r})."
        ) from error
    return Description(file, labels, modalities, parts)


def _in_order(modality: Any) -> tuple[str, ...]:
    """{"0": "FLAIR", "1": "T1w"} to names in order."""
    return tuple(str(modality[number]) for number in sorted(modality, key=int))


def _values(labels: Mapping[str, Any]) -> dict[str, int]:
    """{"0": "background", "1": "spleen"} of MSD, or {"background": 0, "spleen": 1} of nnU-Net, to values by name."""
    if all(str(key).isdigit() for key in labels):
        pairs = [(str(name), int(value)) for value, name in labels.items()]
    else:
        pairs = [(str(name), int(value)) for name, value in labels.items()]
    named = {name: value for name, value in pairs if value != 0}
    if len(named) != sum(value != 0 for _, value in pairs):
        raise ValueError("a name stands for two labels")
    return named


def described_classes(dataset_dir: str | Path, model_file: str | Path) -> dict[str, list[int]]:
    """Label values by class name, of the run's record or of ``dataset.json``.

    Args:
        dataset_dir: folder of the data set, or of files to segment.
        model_file: of the run, which need not exist yet.

    Raises:
        DataError: neither is there, the description names no label, or the two differ.
    """
    kept = _kept(model_file, "class_labels")
    if not (Path(dataset_dir) / DESCRIPTION).is_file() and kept is not None:
        return kept
    found = {name: [value] for name, value in read_description(dataset_dir).labels.items()}
    if not found:
        raise DataError(f"{Path(dataset_dir) / DESCRIPTION} names no label: complete it or set class_labels yourself.")
    if kept is not None and _all_values(kept) != _all_values(found):
        raise DataError(
            f"{Path(dataset_dir) / DESCRIPTION} has the labels {found} but the run of {model_file} has {kept}: give "
            "the data set of that run, or another output_dir for a new one."
        )
    return found if kept is None else kept


def _all_values(classes: Mapping[str, Sequence[int]]) -> set[int]:
    return {value for values in classes.values() for value in values}


def described_channels(dataset_dir: str | Path, model_file: str | Path) -> str:
    """Channel layout: "windows" of a single CT, else "z_score"; of the run's record or of ``dataset.json``.

    Raises:
        DataError: neither is there, or the two differ.
    """
    kept = _kept(model_file, "channels")
    if not (Path(dataset_dir) / DESCRIPTION).is_file() and kept is not None:
        return str(kept)
    modalities = read_description(dataset_dir).modalities
    found = "windows" if [name.upper() for name in modalities] == ["CT"] else "z_score"
    return str(_agreed("channels", found, kept, dataset_dir, model_file))


def described_volumes(
    dataset_dir: str | Path, model_file: str | Path, modalities: Sequence[str | int] | None = None
) -> list[int] | None:
    """Numbers of the modalities within a four-dimensional file; None where each file has one.

    Args:
        dataset_dir: folder of the data set, or of files to segment.
        model_file: of the run.
        modalities: names or numbers of those to use, in their order; None for all.

    Raises:
        DataError: ``dataset.json`` lacks one of them, it and the record differ, or neither is there.
    """
    recorded = _kept(model_file, "class_labels") is not None
    kept = _kept(model_file, "volumes")
    if not (Path(dataset_dir) / DESCRIPTION).is_file() and recorded:
        return kept
    described = read_description(dataset_dir)
    known = described.modalities
    wanted = (
        [modalities]
        if isinstance(modalities, str | int)
        else list(range(len(known)) if modalities is None else modalities)
    )
    found = [_number(described, one) for one in wanted] if len(known) > 1 else None
    return _agreed("modalities", found, kept, dataset_dir, model_file) if recorded else found


def _number(described: Description, modality: str | int) -> int:
    known = described.modalities
    if modality in known:
        return known.index(str(modality))
    if str(modality).isdigit() and int(modality) < len(known):
        return int(modality)
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(known))
    raise DataError(f"{described.file} has no modality {modality!r}: choose among {listed}.")


def _agreed(name: str, found: Any, kept: Any, dataset_dir: str | Path, model_file: str | Path) -> Any:
    """What the description means, unless the run had something else."""
    if kept is not None and kept != found:
        raise DataError(
            f"{Path(dataset_dir) / DESCRIPTION} means {name} {found} but the run of {model_file} had {kept}: set "
            f"{name} yourself, or give another output_dir for a new run."
        )
    return found


def _kept(model_file: str | Path, name: str) -> Any:
    """A plain value of the configuration of the run that made a model; None without one."""
    file = Path(model_file).parent.parent / _RUN_CONFIG
    try:
        value = json.loads(file.read_text(encoding="utf-8")).get(name)
    except (OSError, ValueError, AttributeError):
        return None
    computed = isinstance(value, dict) and "_target_" in value
    return None if computed or (isinstance(value, str) and value.startswith(("$", "@"))) else value
