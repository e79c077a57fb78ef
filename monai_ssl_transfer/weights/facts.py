"""What was learnt of a file when it was read, so that a program that needs it again does not read it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monai_ssl_transfer.weights.card import EncoderCard


@dataclass(frozen=True)
class EncoderFacts:
    """An encoder's file without its tensors.

    Args:
        card: of the encoder.
        sha256: of the file, in hexadecimal digits.
        source: what kind of file it is.
        notes: what was done to its tensors besides renaming, and what they do not show.
    """

    card: EncoderCard
    sha256: str
    source: str
    notes: tuple[str, ...] = ()


Signature = tuple[str, int, int, int]
_facts: dict[Signature, EncoderFacts] = {}


def _signature(path: Path) -> Signature:
    """Changes whenever the file is replaced or written to."""
    status = path.stat()
    return str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns


def remember(path: Path, facts: EncoderFacts) -> None:
    """Keep what is known of a file as it is now."""
    _facts[_signature(path)] = facts


def remembered(path: Path) -> EncoderFacts | None:
    """What is known of a file, or None if it was never read or has changed since."""
    return _facts.get(_signature(path)) if path.is_file() else None
