"""The classes of a training run, written beside it, so that evaluation and inference name the outputs as it did."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

CLASSES_FILE = "classes.json"
"""File of a run: the names of its outputs, and whether an image may show several of them."""


def class_names(run_dir: str | Path | None, classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the outputs of a network.

    Args:
        run_dir: folder of the training run that a model comes from; None while it is trained.
        classes: names where there is no record.

    Raises:
        DataError: fewer than two names, a name twice, or a damaged record.
    """
    recorded = None if run_dir is None else recorded_classes(run_dir)
    if run_dir is not None and recorded is None:
        logger.warning("there is no %s: the classes are called %s", Path(run_dir) / CLASSES_FILE, ", ".join(classes))
    names = tuple(str(name) for name in (classes if recorded is None else recorded["class_names"]))
    if not names or len(set(names)) < len(names):
        raise DataError(f"the classes ({', '.join(names) or 'none'}) need a name each, and each another: correct them.")
    return names


def several_findings(run_dir: str | Path | None, usual: bool = False) -> bool:
    """Whether an image may show several classes or none (outputs are sigmoids), as the training run recorded.

    Args:
        run_dir: folder of the training run.
        usual: where there is no record.

    Raises:
        DataError: a damaged record.
    """
    recorded = None if run_dir is None else recorded_classes(run_dir)
    return usual if recorded is None else bool(recorded["multilabel"])


def record_classes(names: Sequence[str], multilabel: bool, output_dir: str | Path) -> None:
    """Write ``classes.json`` of a training run; several ranks may do so.

    Args:
        names: of the outputs, in their order.
        multilabel: whether an image may show several of them.
        output_dir: folder of the run.
    """
    content = json.dumps({"class_names": list(names), "multilabel": bool(multilabel)}, indent=1) + "\n"
    write_durably(Path(output_dir) / CLASSES_FILE, lambda file: file.write(content.encode()))


def recorded_classes(run_dir: str | Path) -> dict[str, Any] | None:
    """Read what `record_classes` wrote; None where there is no such file.

    Raises:
        DataError: a damaged file.
    """
    file = Path(run_dir) / CLASSES_FILE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {
            "class_names": [str(name) for name in content["class_names"]],
            "multilabel": bool(content["multilabel"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} does not list the classes of a run ({error!r}): train again, or correct it."
        ) from error
