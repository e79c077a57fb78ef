"""A probe from its name and the settings of a command line."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes import PROBES

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null"}
_EXAMPLES = {int: "[5,20]", float: "[0.01,0.1]", bool: "[false,true]"}


def probe_with(protocol: str, settings: Mapping[str, Any] | None = None) -> Any:
    """A probe with some of its settings changed.

    Args:
        protocol: a name of `PROBES`.
        settings: field by name; a list becomes a tuple, and a probe within a probe is given by its name.

    Raises:
        DataError: no such probe or setting, or a value of another kind.
    """
    if protocol not in PROBES:
        raise DataError(f"there is no probe '{protocol}': choose one of {', '.join(PROBES)}.")
    kind: Any = PROBES[protocol]
    known = [one.name for one in dataclasses.fields(kind) if one.init and one.name != "name"]
    hints, given = get_type_hints(kind), {}
    for name, value in (settings or {}).items():
        if name not in known:
            raise DataError(f"the probe {protocol} has no setting '{name}': choose one of {', '.join(known)}.")
        if name == "probe" and isinstance(value, str):
            given[name] = probe_with(value)
            continue
        given[name] = _frozen(value)
        if name != "probe" and not _fits(given[name], hints[name]):
            wanted = _words(hints[name])
            raise DataError(f"{name} of the probe {protocol} is {json.dumps(value)}: give {wanted}.")
    return kind(**given)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of a field's type; whole numbers are also numbers."""
    if get_origin(hint) is types.UnionType:
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(one, get_args(hint)[0]) for one in value)
    return type(value) is hint or (hint is float and type(value) is int)


def _words(hint: Any) -> str:
    """A field's type for a reader."""
    if get_origin(hint) is types.UnionType:
        return " or ".join(map(_words, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list, each of them {_words(get_args(hint)[0])}, such as {_EXAMPLES[get_args(hint)[0]]}"
    return _WORDS[hint]


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
