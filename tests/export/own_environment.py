"""An environment with nothing but what a list of packages brings, made of links to this one: no network is needed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def linked_environment(wanted: Iterable[str], folder: Path) -> dict[str, str]:
    """What ``pip install`` of some packages would bring, without the package that is tested.

    Args:
        wanted: requirements such as "monai==1.6.1"; versions are those that are installed here.
        folder: that is filled with links.

    Returns:
        The environment variables of a Python that is started with ``-S``, which alone leaves site-packages out.
    """
    folder.mkdir()
    for found in _closure([Requirement(one) for one in wanted]):
        for file in found.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not top.endswith(".pth") and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))))
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


def _closure(wanted: list[Requirement]) -> list[Distribution]:
    found: dict[tuple[str, frozenset[str]], Distribution] = {}
    for one in wanted:
        distribution(one.name)  # what is asked for by name must be here
    while wanted:
        one = wanted.pop()
        key = (one.name.lower(), frozenset(one.extras))
        if key in found:
            continue
        try:
            found[key] = distribution(one.name)
        except PackageNotFoundError:  # of another platform or Python; what is truly missing fails in the program
            continue
        for line in found[key].requires or ():
            needed = Requirement(line)
            extras = [{"extra": extra} for extra in one.extras] or [{"extra": ""}]
            if needed.marker is None or any(needed.marker.evaluate(extra) for extra in extras):
                wanted.append(needed)
    return list(found.values())
