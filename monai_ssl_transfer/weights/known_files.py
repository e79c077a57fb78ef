"""Published files of weights by the hash of their bytes: what they are, and what their licence asks for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownFile:
    """A published file of weights.

    Args:
        name: name of the file at its source.
        sha256: SHA-256 of its bytes, in hexadecimal digits.
        names: other names it is met under.
        architecture: encoder in it, as in `networks.encoders`.
        method: how it was pretrained, as in `methods`, or "supervised".
        domain: what it was pretrained on.
        mean: mean of the input's channels in pretraining, on a scale of 0 to 1; empty if unknown.
        std: their standard deviation.
        image_size: side of the input in pixels; None if unknown.
        licence: text to show before use.
        acknowledgement: what the authors ask users to cite or to state; empty if nothing.
        redistribution: whether copies may be handed on; None if unknown.
        commercial: whether commercial use is allowed; None if unknown.
        licence_source: where the licence was read.
    """

    name: str
    sha256: str
    names: tuple[str, ...] = ()
    architecture: str = ""
    method: str = ""
    domain: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    image_size: int | None = None
    licence: str = ""
    acknowledgement: str = ""
    redistribution: bool | None = None
    commercial: bool | None = None
    licence_source: str = ""


KNOWN_FILES: tuple[KnownFile, ...] = ()
"""Published files whose hash is known."""


def known_file(sha256: str) -> KnownFile | None:
    """The published file with this SHA-256, or None.

    Args:
        sha256: hexadecimal digits of the hash.
    """
    return next((known for known in KNOWN_FILES if known.sha256 == sha256.lower()), None)


def by_name(name: str) -> KnownFile | None:
    """The published file that a file of this name may be: a hint, never a certainty, as anybody may name a file so.

    Args:
        name: the file's name without folders.
    """
    return next((known for known in KNOWN_FILES if name in (known.name, *known.names)), None)
