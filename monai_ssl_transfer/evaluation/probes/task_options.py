"""A probe from its name and the settings of a command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes import PROBES


def probe_with(protocol: str, settings: Mapping[str, Any] | None = None) -> Any:
    """A probe with some of its settings changed.

    Args:
        protocol: a name of `PROBES`.
        settings: field by name; a list becomes a tuple, and a probe within a probe is given by its name.

    Raises:
        DataError: no such probe or setting.
    """
    if protocol not in PROBES:
        raise DataError(f"there is no probe '{protocol}': choose one of {', '.join(PROBES)}.")
    kind: Any = PROBES[protocol]
    known = [one.name for one in dataclasses.fields(kind) if one.init]
    given = {}
    for name, value in (settings or {}).items():
        if name not in known:
            raise DataError(f"the probe {protocol} has no setting '{name}': choose one of {', '.join(known)}.")
        given[name] = probe_with(value) if name == "probe" and isinstance(value, str) else _frozen(value)
    return kind(**given)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
