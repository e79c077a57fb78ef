"""The order in which people number files."""

from __future__ import annotations

import re

_PARTS = re.compile(r"([0-9]+)|([^0-9]+)")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that counts digits as numbers: ``liver_2`` before ``liver_10``."""
    return [(0, int(number), "") if number else (1, 0, text) for number, text in _PARTS.findall(name)]
