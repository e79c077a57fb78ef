"""The division that a training run used, written beside the run, so that its evaluation takes the same one unasked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

NO_TEST_CASE = (
    "too few patients: none is left for the test, so evaluate.json judges the validation part, which chose the epoch"
)
"""Warning of a division whose test part stays empty although a share was asked for."""


def record_split(file: str | Path, names: Mapping[str, Sequence[str]]) -> None:
    """Write the names (cases, patients) of every part; several ranks may do so at once.

    Args:
        file: JSON file, replaced when it exists.
        names: names by part ("train", "validation", ...).
    """
    content = json.dumps({part: list(listed) for part, listed in names.items()}, indent=1) + "\n"
    write_durably(Path(file), lambda stream: stream.write(content.encode()))


def recorded_split(
    file: str | Path, parts: Sequence[str] = ("train", "validation"), optional: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Read what `record_split` wrote.

    Args:
        file: the record.
        parts: the parts to read; each must be there.
        optional: parts that records of older versions lack; they are empty then.

    Raises:
        DataError: there is no such file, or it is no such record.
    """
    path = Path(file)
    if not path.is_file():
        raise DataError(
            f"there is no {path}, which training writes: give --model_file of a run, or the cases themselves."
        )
    try:
        content = json.loads(path.read_text())
        found = {part: content[part] for part in parts} | {part: content.get(part, []) for part in optional}
        return {part: [str(name) for name in listed] for part, listed in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not the record of a division ({error!r}): give the cases themselves.") from error


def part_to_judge(asked: str | None, named: Mapping[str, Sequence[str]], recorded: Mapping[str, Sequence[str]]) -> str:
    """The part that an evaluation judges.

    Args:
        asked: "train", "validation", "test" or "all"; None chooses: what is named, else the test part, else (a run
            without one) the validation part.
        named: names by part that are given instead of the recorded ones. Validation cases that are the run's own, as
            where one list of settings serves training and evaluation, do not stand in for its test part.
        recorded: names by part of the training run.

    Raises:
        DataError: unknown part.
    """
    known = ("train", "validation", "test", "all")
    if asked is not None and asked not in known:
        raise DataError(f"the part '{asked}' is unknown: choose one of {', '.join(known)}.")
    if asked is not None:
        return asked
    if named.get("test"):
        return "test"
    validation = named.get("validation") or ()
    own = set(validation) == set(recorded.get("validation", ()))
    if recorded.get("test") and (own or not validation):
        return "test"
    return "validation"
