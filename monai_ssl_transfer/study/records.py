"""Records in a study's folder: JSON that is whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_ssl_transfer.durable import write_durably


def write_record(file: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, whole or not at all."""
    write_durably(file, lambda stream: stream.write((json.dumps(record, indent=1) + "\n").encode()))


def read_record(file: Path) -> Mapping[str, Any] | None:
    """Return a record; None where there is no whole one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
