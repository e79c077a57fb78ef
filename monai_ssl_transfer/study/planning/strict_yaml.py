"""A YAML file read strictly: every key is known, no key is there twice, and what is wrong is told with its line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from monai_ssl_transfer.errors import StudyError

Place = tuple[str | int, ...]
"""Keys and numbers that lead to a value."""


class StrictSection:
    """A mapping of a YAML file whose keys are taken one by one; what is left over is refused.

    Args:
        content: the mapping.
        lines: line of every value of the file, by its place.
        place: of this mapping in the file.
        file: that error messages name.
    """

    def __init__(self, content: Mapping[str, Any], lines: Mapping[Place, int], place: Place, file: Path) -> None:
        self.content = dict(content)
        self.lines = lines
        self.place = place
        self.file = file
        self._taken: list[str] = []

    def take(self, key: str, kinds: type | tuple[type, ...], default: Any = ...) -> Any:
        """Return a value of one of some types.

        Args:
            key: its name.
            kinds: types that it may have; a whole number also counts as float.
            default: what a missing key stands for; without one it is refused.

        Raises:
            StudyError: the key is missing, or its value is of another type.
        """
        self._taken.append(key)
        if key not in self.content:
            if default is ...:
                raise self.error(f"lacks '{key}'")
            return default
        value = self.content[key]
        allowed = kinds if isinstance(kinds, tuple) else (kinds,)
        if float in allowed and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            names = " or ".join(_KIND_NAMES.get(kind, kind.__name__) for kind in allowed)
            raise self.error(f"has '{key}: {value}', which is no {names}", key)
        return value

    def texts(self, key: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        """Return a list of text; a single text is a list of one."""
        value = self.take(key, (str, list), ... if default is None else list(default))
        found = [value] if isinstance(value, str) else value
        wrong = next((one for one in found if not isinstance(one, str)), None)
        if wrong is not None:
            raise self.error(f"has '{wrong}' under '{key}', which is no text", key)
        return tuple(found)

    def section(self, key: str, required: bool = True) -> StrictSection:
        """Return a mapping below this one; an absent one is empty unless required."""
        value = self.take(key, (dict, type(None)), ... if required else None)
        return StrictSection(value or {}, self.lines, (*self.place, key), self.file)

    def sections(self) -> dict[str, StrictSection]:
        """Return all values of this mapping as mappings, which they have to be."""
        return {key: self.section(key) for key in self.content}

    def done(self) -> None:
        """Refuse keys that nobody took.

        Raises:
            StudyError: names the first of them, and the known key that is nearest to it.
        """
        for key in self.content:
            if key not in self._taken:
                near = difflib.get_close_matches(str(key), self._taken, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(self._taken)}."
                raise self.error(f"has the unknown key '{key}': {hint}", key)

    def error(self, sentence: str, key: str | int | None = None) -> StudyError:
        """Return an error that says where in the file it is."""
        place = self.place if key is None else (*self.place, key)
        line = self.lines.get(place) or self.lines.get(self.place, 1)
        where = f" ({'.'.join(map(str, self.place))})" if self.place else ""
        text = f"{self.file}, line {line}{where} {sentence}"
        return StudyError(text if text.endswith((".", "?")) else f"{text}.")


_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
"""Numbers such as 1e-3, which YAML 1.1 takes for text: a learning rate would reach the bundle as text."""

_KIND_NAMES = {str: "text", int: "whole number", float: "number", list: "list", dict: "mapping", type(None): "null"}


def read_strict_yaml(file: Path) -> StrictSection:
    """Read a file whose top is a mapping.

    Raises:
        StudyError: it is not there, is no YAML, has a key twice, or has no mapping at its top.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise StudyError(f"{file} cannot be read ({reason}): give the YAML file of a study.") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Place, int] = {}
        content = _value(node, (), lines, file)
    except RecursionError as error:
        raise StudyError(f"{file} refers to itself or is nested too deeply: write it out.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise StudyError(f"{file}{where} is no YAML ({problem}): mend it there.") from error
    if not isinstance(content, dict):
        raise StudyError(f"{file} is no study: its top must be a mapping of title, tasks and so on.")
    return StrictSection(content, lines, (), file)


def _value(node: yaml.Node | None, place: Place, lines: dict[Place, int], file: Path) -> Any:
    """Construct a value by hand, because PyYAML keeps no lines and lets a later key overwrite an earlier one."""
    if node is None:
        return None
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise StudyError(f"{file}, line {line} has a key that is no text: write plain keys.")
            key = str(key_node.value)
            if key in found:
                raise StudyError(f"{file}, line {line} has '{key}' a second time: keep one of them.")
            found[key] = _value(value_node, (*place, key), lines, file)
            lines[(*place, key)] = line
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(one, (*place, number), lines, file) for number, one in enumerate(node.value)]
    if node.style is None and _EXPONENT.fullmatch(node.value):
        return float(node.value)
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except ValueError as error:
        raise StudyError(f"{file}, line {lines[place]} has '{node.value}', which cannot be read: {error}.") from error
    finally:
        loader.dispose()
