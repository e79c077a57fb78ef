"""Files that an ingest must not take, because an evaluation will be made on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import read_names
from monai_ssl_transfer.data.recorded_split import recorded_split
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.errors import DataError


def separate(paths: Sequence[str], leave_out: str | Path | None) -> tuple[list[str], list[tuple[RefusedFile, bool]]]:
    """Divide files into those to take and those that a list leaves out.

    Args:
        paths: absolute paths.
        leave_out: ``frames.json`` of a training run, whose test part is left out, or a text file of one name per line;
            None leaves out nothing.

    Returns:
        Files to take; (why not, that it is on purpose) of the others.

    Raises:
        DataError: the list cannot be read, or names none of the files.
    """
    if leave_out is None:
        return list(paths), []
    file = Path(leave_out)
    listed = recorded_split(file, ("test",))["test"] if file.suffix == ".json" else read_names(file)
    names = frozenset(listed)
    kept = [path for path in paths if Path(path).stem not in names]
    if len(kept) == len(paths):
        raise DataError(f"{file} names none of the files that are to be ingested: give the list of this data set.")
    sentence = f"left out on purpose, {file.name} keeps it for the test"
    left = [(RefusedFile(path, "left out", sentence), True) for path in paths if Path(path).stem in names]
    return kept, left
