"""Settings that people give against the configuration files that they are for: MONAI takes any id and says nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any


def ids_of(files: Iterable[str | Path]) -> set[str]:
    """Every id of some configuration files, such as "network_def" and "network_def#in_channels".

    Args:
        files: a bundle's configuration and overlays, as JSON.
    """
    return {name for file in files for name in _ids(json.loads(Path(file).read_text(encoding="utf-8")), "")}


def unknown_setting(names: Iterable[str], known: set[str]) -> tuple[str, str] | None:
    """The first setting that would change nothing, and the id that was probably meant.

    A new entry of a dictionary that is there, such as network_def#dropout_prob, is meant and no mistake.

    Args:
        names: ids to override, "a#b" or "a::b".
        known: of `ids_of`.

    Returns:
        The name and the id nearest to it ("": none is near), or None when all are known.
    """
    for name in names:
        given = name.replace("::", "#")
        whole = given.rpartition("#")[0]
        if given not in known and whole not in known:
            near = get_close_matches(given, sorted(known), 1)
            return name, near[0] if near else ""
    return None


def _ids(part: Any, above: str) -> Iterator[str]:
    entries = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for name, value in entries:
        own = f"{above}#{name}" if above else str(name).lstrip("+~").replace("::", "#")
        yield own
        yield from _ids(value, own)
