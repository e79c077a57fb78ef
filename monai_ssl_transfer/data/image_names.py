"""Which file, and which slice or frame of it, stands behind an image of a store that was made from a folder."""

from __future__ import annotations

from pathlib import PurePosixPath

from monai_ssl_transfer.data.folder_store import KEPT, FileOutcome, StoredImages
from monai_ssl_transfer.data.natural_order import natural_key
from monai_ssl_transfer.data.redaction import Pseudonyms, open_salt
from monai_ssl_transfer.errors import DataError


class ImageNames:
    """Names of images, from the files themselves: the store holds only a salted hash of where each came from.

    DICOM headers and the bytes of photographs and videos are read once more for it. Of an image the process keeps its
    hash, a reference to its file's name and a number.

    Args:
        images: their store and, if it was made from a folder, that folder.
        every: of a video, each so-many-th frame was taken.
    """

    def __init__(self, images: StoredImages, every: int) -> None:
        self.store = images.store
        self.from_folder = images.folder is not None
        self._places: dict[int, tuple[str, int | None]] = {}
        self._volumes: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        if self.from_folder:
            pseudonyms = open_salt(self.store.path, store_has_series=True)
            kept = [outcome for outcome in images.outcomes() if outcome.status == KEPT]
            if self.store.pixels == "rgb":
                self._name_frames(kept, pseudonyms, every)
            else:
                self._name_slices(kept, pseudonyms)

    def __call__(self, number: int) -> tuple[str | None, int | None]:
        """File of an image below the folder, and the number of the slice or frame in it; None where there is none.

        Args:
            number: of the image in the store.

        Raises:
            DataError: a file was changed while it was read.
        """
        if not self.from_folder:
            return None, None
        row = self.store.index[number]
        series = int(row["series"])
        volume = self._volumes.get(self.store.series(series).series_key)
        if volume is not None:
            return volume, number - self.store.series_range(series).start
        found = self._places.get(int(row["source"]))
        if found is None:
            raise DataError(f"image {number} has no file any more: a file was changed while it was read, run again")
        return found

    def series(self, key: str) -> str | None:
        """Name of a CT series: its NIfTI file, or the folder of its DICOM files (with a number where it has several).

        Args:
            key: of the series in the store.
        """
        return self._volumes.get(key) or self._folders.get(key)

    def _name_slices(self, kept: list[FileOutcome], pseudonyms: Pseudonyms) -> None:
        from monai_ssl_transfer.data.ct.ingest_worker import scan_files, source_number

        kinds = {one.series_key: one.kind for one in map(self.store.series, range(self.store.series_count))}
        for outcome in kept:
            if kinds.get(outcome.series) == "nifti":
                self._volumes[outcome.series] = outcome.file
                continue
            headers = scan_files([outcome.path])[0].headers
            for header in headers:
                place = (outcome.file, header.frame if len(headers) > 1 else None)
                self._places[source_number(pseudonyms, header.sop_uid)] = place
        # by the slices: a file of several frames may hold several series
        first = {
            self.store.series(number).series_key: min(
                (self(i)[0] or "" for i in self.store.series_range(number)), key=natural_key
            )
            for number in range(self.store.series_count)
        }
        self._folders = _folder_names({key: file for key, file in first.items() if key not in self._volumes})

    def _name_frames(self, kept: list[FileOutcome], pseudonyms: Pseudonyms, every: int) -> None:
        from monai_ssl_transfer.data.endoscopy.ingest_sources import content_hash, photograph_source, video_source
        from monai_ssl_transfer.data.endoscopy.video import VIDEO_SUFFIXES

        for outcome in kept:
            content = content_hash(outcome.path)
            if not outcome.path.lower().endswith(VIDEO_SUFFIXES):
                self._places[photograph_source(pseudonyms, content)] = (outcome.file, None)
                continue
            for frame in range(0, outcome.frames * every, every):
                self._places[video_source(pseudonyms, content, frame)] = (outcome.file, frame)


def _folder_names(first: dict[str, str]) -> dict[str, str]:
    """Folder by series key; numbered by the first files where several series lie in one."""
    shared: dict[str, list[str]] = {}
    for key in sorted(first, key=lambda key: natural_key(first[key])):
        shared.setdefault(PurePosixPath(first[key]).parent.as_posix(), []).append(key)
    return {
        key: folder if len(keys) == 1 else f"{folder}#{number}"
        for folder, keys in shared.items()
        for number, key in enumerate(keys, 1)
    }
