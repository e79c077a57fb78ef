"""Recognising published files of weights by the hash of their bytes, or guessing them by their name.

Nothing is ever downloaded: a file is only recognised when the user has it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from monai_ssl_transfer.weights.published.published_list import KNOWN_FILES, KnownFile

__all__ = ["KNOWN_FILES", "KnownFile", "by_name", "hash_in_name", "known_file"]

_NAMED_HASH = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")
_CHANGED_PLUS = re.compile(r"_2b|(?<=swsl)2b|\+")


def known_file(sha256: str) -> KnownFile | None:
    """The published file with this SHA-256, or None.

    Args:
        sha256: hexadecimal digits of the hash of a file.
    """
    return next((known for known in KNOWN_FILES if sha256 and known.sha256 == sha256.lower()), None)


def by_name(name: str) -> KnownFile | None:
    """The published file that a file of this name may be: a hint, never a certainty, as anybody may call a file so.

    Args:
        name: the file's name; folders are left out, and `+` may be written as `%2B`, `_2B` or `2B`.
    """
    wanted = _plain(re.split(r"[/\\]", name)[-1])
    for known in KNOWN_FILES:
        if wanted in {_plain(one) for one in (known.name, *known.names)}:
            return known
    return None


def hash_in_name(name: str) -> str:
    """The first digits of the file's SHA-256 that its name states, as torch.hub has it (`resnet50-0676ba61.pth`).

    Args:
        name: the file's name.

    Returns:
        The digits, or "" if the name states none. Digits that differ from the file's hash show another or a damaged
        file.
    """
    found = _NAMED_HASH.search(name)
    return found.group(1) if found else ""


def _plain(name: str) -> str:
    """A file's name without the marks that hubs and browsers change or add."""
    name = re.sub(r" ?\(\d+\)(?=\.)", "", unquote(name)).lower()
    return _CHANGED_PLUS.sub("+", name)
