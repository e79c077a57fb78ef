"""Why a file is not taken: one code to count by, one sentence to read, and the path kept apart from both."""

from __future__ import annotations

from pathlib import Path

from monai_ssl_transfer.errors import DataError


class RefusedFile(DataError):  # noqa: N818 - collected and reported far more often than raised
    """A file that an ingest cannot use.

    Its message names the file; ``sentence`` alone never does, nor any value of the header that could identify a
    patient, so that it can be written into a report beside a store.

    Args:
        path: the file.
        code: short name of the reason, the same for all files with that reason.
        sentence: the reason and, where there is one, the remedy.
    """

    def __init__(self, path: str | Path, code: str, sentence: str) -> None:
        super().__init__(f"{path}: {sentence}")
        self.path, self.code, self.sentence = str(path), code, sentence

    def __reduce__(self) -> tuple[type[RefusedFile], tuple[str, str, str]]:
        return type(self), (self.path, self.code, self.sentence)
