"""Where the real images are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real images: ``SSL_TRANSFER_REAL_DATA``, else ``../shared/data`` beside the project; else skips."""
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SSL_TRANSFER_REAL_DATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; set SSL_TRANSFER_REAL_DATA to run this test")
    return folder
