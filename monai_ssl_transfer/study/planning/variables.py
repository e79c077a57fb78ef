"""Values that a study's file leaves to its user, such as the folders of data: ``${data.lits}``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from monai_ssl_transfer.errors import StudyError
from monai_ssl_transfer.study.planning.strict_yaml import Place, StrictSection

VARIABLES = "variables"
_NAMED = re.compile(r"\$\{([^}]*)\}")


def settings_of(given: Sequence[str]) -> dict[str, str]:
    """Values from "name=value".

    Raises:
        StudyError: no "=".
    """
    found = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name:
            raise StudyError(f"'{one}' sets nothing: give --set as name=value, such as data.root=/data.")
        found[name] = value
    return found


def environment_name(variable: str) -> str:
    """Name of the environment variable that sets a variable."""
    return "SSL_TRANSFER_" + re.sub(r"[^A-Za-z0-9]+", "_", variable).upper()


def fill_in(top: StrictSection, given: Mapping[str, str]) -> None:
    """Replace every ``${name}`` in a file by ``--set``, the environment or the file's own value, in this order.

    Args:
        top: the file; its content is changed.
        given: from the command line.

    Raises:
        StudyError: a name that the file does not declare, or one that is used and has no value.
    """
    declared = top.section(VARIABLES, required=False)
    values: dict[str, str | None] = {}
    for name in declared.content:
        value = declared.take(name, (str, int, float, type(None)))
        value = given.get(name, os.environ.get(environment_name(name), value))
        values[name] = None if value is None else str(value)
    unknown = sorted(set(given) - set(values))
    if unknown:
        known = ", ".join(values) or "none"
        raise StudyError(f"{top.file} has no variable '{unknown[0]}' to set: it declares {known}.")

    def filled(value: Any, place: Place) -> Any:
        if isinstance(value, dict):
            return {key: filled(one, (*place, key)) for key, one in value.items()}
        if isinstance(value, list):
            return [filled(one, (*place, number)) for number, one in enumerate(value)]
        return (
            _NAMED.sub(lambda found: _value(found[1], values, top, place), value) if isinstance(value, str) else value
        )

    for key, value in top.content.items():
        if key != VARIABLES:
            top.content[key] = filled(value, (key,))


def _value(name: str, values: Mapping[str, str | None], top: StrictSection, place: Place) -> str:
    where = f"{top.file}, line {top.lines.get(place, 1)}"
    if name not in values:
        raise StudyError(f"{where} uses ${{{name}}}, which '{VARIABLES}' does not declare: add it there.")
    value = values[name]
    if value is None:
        raise StudyError(f"{where} needs {name}: give --set {name}=VALUE, or set {environment_name(name)}.")
    return value
