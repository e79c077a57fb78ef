"""Files that an ingest must not take, because an evaluation will be made on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_ssl_transfer.data.endoscopy.frame_listing import read_names
from monai_ssl_transfer.data.endoscopy.frames import FRAME_SUFFIXES
from monai_ssl_transfer.data.endoscopy.ingest_sources import content_hash, photograph_source, video_source
from monai_ssl_transfer.data.endoscopy.labelled_frames import HELD_OUT_FILES, path_end
from monai_ssl_transfer.data.endoscopy.video import VIDEO_SUFFIXES
from monai_ssl_transfer.data.recorded_split import recorded_split
from monai_ssl_transfer.data.redaction import Pseudonyms
from monai_ssl_transfer.data.refusal import RefusedFile
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.errors import DataError


def separate(paths: Sequence[str], leave_out: str | Path | None) -> tuple[list[str], list[tuple[RefusedFile, bool]]]:
    """Divide files into those to take and those that a list leaves out.

    Args:
        paths: absolute paths.
        leave_out: ``frames.json`` of a training run, whose test photographs are left out and so are those of their
            scenes that the run left out itself; or a text file of one name per line. None leaves out nothing.

    Returns:
        Files to take; (why not, that it is on purpose) of the others.

    Raises:
        DataError: the list cannot be read, or names none of the files.
    """
    if leave_out is None:
        return list(paths), []
    file = Path(leave_out)
    names, ends = _listed(file)
    left_out = {path for path in paths if Path(path).stem in names or path_end(path) in ends}
    if not left_out:
        raise DataError(f"{file} names none of the files that are to be ingested: give the list of this data set.")
    sentence = f"left out on purpose, {file.name} keeps it for the test"
    left = [(RefusedFile(path, "left out", sentence), True) for path in paths if path in left_out]
    return [path for path in paths if path not in left_out], left


def _listed(file: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Names of files without suffix, and ends of paths: the cases of some data sets are not called after their file."""
    if file.suffix != ".json":
        return frozenset(read_names(file)), frozenset()
    record = recorded_split(file, ("test",), optional=("left_out", HELD_OUT_FILES))
    return frozenset(record["test"] + record["left_out"]), frozenset(record[HELD_OUT_FILES])


def refuse_stored(left_out: Sequence[str], store: SliceStore, pseudonyms: Pseudonyms) -> None:
    """Refuse to leave out what the store holds already, from an ingest before or as a copy of another name.

    Args:
        left_out: absolute paths.
        store: as it is before this ingest.
        pseudonyms: of the store.

    Raises:
        DataError: the store holds one of the files; names it.
    """
    if not len(store):
        return
    held = np.asarray(store.index["source"])
    for path in left_out:
        if not path.lower().endswith(FRAME_SUFFIXES + VIDEO_SUFFIXES):
            continue
        content = content_hash(path)
        sources = np.array([photograph_source(pseudonyms, content), video_source(pseudonyms, content, 0)], np.uint64)
        if np.isin(sources, held).any():
            raise DataError(f"{path} shall be left out but is in {store.path} already: ingest into a new store.")
