"""Files survive kills and full disks."""

from __future__ import annotations

import multiprocessing
import random
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_ssl_transfer.durable import write_durably


def rewrite_for_ever(file: str) -> None:
    """Rewrite a file, each time with another byte repeated."""
    number = 0
    while True:
        content = bytes([number % 251]) * 5_000_000
        write_durably(Path(file), lambda stream, content=content: stream.write(content))
        number += 1


def test_kill_while_writing_leaves_the_previous_file_whole(tmp_path: Path) -> None:
    """Whenever the writer is killed, the file is complete and of one piece."""
    file = tmp_path / "file"
    for _ in range(3):
        process = multiprocessing.get_context("fork").Process(target=rewrite_for_ever, args=(str(file),))
        process.start()
        time.sleep(random.uniform(0.2, 0.5))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        content = file.read_bytes()
        assert len(content) == 5_000_000
        assert len(set(content)) == 1


def test_full_disk_leaves_the_previous_file_whole(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("2m")
    file = disk / "file"
    write_durably(file, lambda stream: stream.write(b"1" * 1_000_000))
    with pytest.raises(OSError, match="No space"):
        write_durably(file, lambda stream: stream.write(b"2" * 1_500_000))
    assert file.read_bytes() == b"1" * 1_000_000
    assert [path.name for path in disk.iterdir()] == [file.name]


def test_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    write_durably(tmp_path / "salt", lambda stream: stream.write(b"secret"), mode=0o600)
    assert stat.S_IMODE((tmp_path / "salt").stat().st_mode) == 0o600
