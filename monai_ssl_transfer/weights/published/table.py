"""The table of recognised sources and published files, for people."""

from __future__ import annotations

from collections.abc import Sequence

from monai_ssl_transfer.weights.published.files import KNOWN_FILES
from monai_ssl_transfer.weights.reading.sources import SOURCES

HASH_DIGITS = 8


def known_table() -> str:
    """Two tables: the kinds of checkpoints, and the published files that are known by their hash or name."""
    sources = []
    for source in SOURCES:
        sources.append(f"  {source.name}" + (f" ({source.method})" if source.method else ""))
        sources.append(f"      used: {source.uses}; dropped: {source.drops or 'nothing'}")
    files = [("file", "sha256", "encoder", "method", "hand on", "commercial")]
    said = {True: "yes", False: "no", None: "?"}
    files += [
        (
            known.name,
            known.sha256[:HASH_DIGITS] or "by name",
            known.architecture,
            known.method,
            said[known.redistribution],
            said[known.commercial],
        )
        for known in KNOWN_FILES
    ]
    return "\n".join(
        [
            "Checkpoints that are recognised by what is in them",
            *sources,
            "",
            "Published files that are known by their hash, or by name where none is published; none is "
            "ever downloaded; ? = nothing was found about it",
            *_columns(files),
        ]
    )


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  " + "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
