"""The list of a datastore's files: shared by processes, replaced in one step, never ahead of what is on the disk."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from monailabel.datastore.local import LocalDatastore, LocalDatastoreModel

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import LabelError

logger = logging.getLogger(__name__)

_PATIENCE = 30.0
"""Seconds for another process to finish writing its label."""


class SharedListDatastore(LocalDatastore):
    """The stock datastore whose list of files several processes change (the server, a training, a batch inference).

    Args:
        folder: of the images; one that cannot be written is served, and every change is refused.
        extensions: patterns of the files' names.
        auto_reload: watch the folder for files that other programs add or remove.
    """

    def __init__(self, folder: str, extensions: tuple[str, ...], auto_reload: bool = False) -> None:
        self._guard_threads = threading.RLock()
        self._held = 0
        self._stamp = (0, 0, 0)  # of the list on the disk: when written, how long, which file
        self._folder = Path(folder)
        self.read_only = not _can_write(self._folder)
        if self.read_only:
            logger.warning("%s cannot be written: images are served, and labels are refused", folder)
        try:
            super().__init__(
                folder, extensions=extensions, auto_reload=auto_reload and not self.read_only, read_only=True
            )
        except OSError as error:
            if not self.read_only:  # else only the folders of labels could not be made, which comes last
                raise _not_written(self._folder, error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among threads and processes, with the list as it is on the disk."""
        with self._guard_threads:
            if self.read_only or self._held:
                yield
                return
            lock = FileLock(self._lock_file, timeout=_PATIENCE)
            try:
                lock.acquire()
            except Timeout as error:
                raise LabelError(f"{self._folder} is in use by another process: try again in a minute.", 409) from error
            except OSError as error:
                raise _not_written(self._folder, error) from error
            self._held += 1
            try:
                self._read_list()
                yield
            finally:
                self._held -= 1
                lock.release()

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        """Take in what another process wrote."""
        with self._locked():
            if self.read_only:
                self._read_list()

    def _read_list(self) -> None:
        file = Path(self._datastore_config_path)
        try:
            stat = file.stat()
        except FileNotFoundError:
            return
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if stamp == self._stamp:
            return
        try:
            self._datastore = LocalDatastoreModel.model_validate_json(file.read_text(encoding="utf-8"))
            self._datastore.base_path = self._datastore_path
        except ValueError as error:
            aside = file.with_name(f"{file.name}.damaged-{int(time.time())}")
            logger.error("%s is damaged (%s): kept as %s and made anew from the files", file, error, aside.name)
            if not self.read_only:
                file.replace(aside)
            self._stamp = (0, 0, 0)
            return
        self._stamp = stamp

    def _update_datastore_file(self, lock: bool = True) -> None:
        """Write the list in one step."""
        if self.read_only:
            return
        with self._locked():
            content = self._datastore.model_dump(exclude={"base_path"})
            file = Path(self._datastore_config_path)
            text = json.dumps(content, indent=2, default=str)
            write_durably(file, lambda stream: stream.write(text.encode()))
            stat = file.stat()
            self._stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)

    def _change(self, change: Callable[[], None], place: Path) -> None:
        """Carry out a change of files and list; the list in memory follows only what is on the disk."""
        self._refuse_read_only()
        try:
            with self._locked():
                before = self._datastore.model_copy(deep=True)
                try:
                    change()
                    self._update_datastore_file()
                except BaseException:
                    self._datastore = before
                    raise
        except OSError as error:
            raise _not_written(place, error) from error

    def _refuse_read_only(self) -> None:
        if self.read_only:
            raise LabelError(f"{self._folder} is read-only: make it writable and start the server again.", 403)


def _can_write(folder: Path) -> bool:
    """Tried, because rights say nothing to root and nothing of a read-only disk."""
    probe = folder / f".writable.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def _not_written(place: Path, error: OSError) -> LabelError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free space there" if full else "make the folder writable"
    said = f"{place.name} could not be saved ({error.strerror or error}): {remedy} and send it again; nothing was lost."
    return LabelError(said, 507 if full else 403)
