from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from monai_ssl_transfer.engines.checkpoints.fingerprint import file_hash
from monai_ssl_transfer.errors import WeightsError


def test_an_encoder_has_one_hash_however_it_is_named(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000  # more than is read at a time
    (tmp_path / "encoder.safetensors").write_bytes(content)
    (tmp_path / "encoder.json").write_text("{}")
    expected = hashlib.sha256(content).hexdigest()
    assert {file_hash(tmp_path / name) for name in ("encoder.safetensors", "encoder.json", "")} == {expected}
    assert file_hash(None) is None


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pth cannot be read .*--encoder_weights"):
        file_hash(tmp_path / "gone.pth")
