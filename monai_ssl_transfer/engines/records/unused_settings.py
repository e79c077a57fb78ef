"""Settings that no part of a training asks for: MONAI takes any name on its command line and says nothing."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator
from typing import Any

from monai_ssl_transfer.engines.records.run_config import running_parser
from monai_ssl_transfer.errors import TrainingError

_REFERENCE = re.compile(r"[@%](\w+)")
_OF_MONAI = {
    "imports", "initialize", "run", "finalize", "bundle_root", "workflow_type", "workflow", "workflow_name",
    "tracking", "tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0",
}  # fmt: skip
_OF_SOME_METHODS = {"temperature", "preset", "vit"}
"""Settings of train.json that a method may do without; it stands there all the same."""


def refuse_unused_settings() -> None:
    """Refuse settings that nothing in the configuration refers to; bundles call this in ``initialize``.

    Such a setting is misspelled or belongs to another method, and the run would silently be another one than asked for.

    Raises:
        TrainingError: names the settings, and what was probably meant.
    """
    parser = running_parser()
    if parser is None:
        return
    config = parser.get()
    if unused := unused_settings(config, typed_settings(sys.argv)):
        raise TrainingError(
            f"Nothing in this training (method {config.get('method_name')}) uses "
            + ", ".join(_with_remedy(name, config) for name in unused)
            + "."
        )


def unused_settings(config: dict[str, Any], typed: set[str]) -> list[str]:
    """The top-level names of a configuration that nothing in it refers to.

    Args:
        config: merged, not computed yet.
        typed: names on the command line; elsewhere ``temperature``, for example, may stand unused.
    """
    used = {name for text in _texts(config) for name in _REFERENCE.findall(text)} | _OF_MONAI
    idle = _OF_SOME_METHODS - typed
    return [name for name in config if not name.startswith("_") and name not in used | idle]


def typed_settings(words: list[str]) -> set[str]:
    """The top-level names that a command line sets.

    Args:
        words: of the command line; ``--name value``, ``--name=value`` or ``--section#name value``.
    """
    return {re.split("=|#|::", word[2:])[0] for word in words if word.startswith("--")}


def _texts(part: Any) -> Iterator[str]:
    """All references and expressions of a configuration."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name != "_desc_":
                yield from _texts(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _texts(value)
    elif isinstance(part, str) and part.startswith(("$", "@", "%")):
        yield part


def _with_remedy(name: str, config: dict[str, Any]) -> str:
    method = config.get("method")
    if isinstance(method, dict) and name in method:
        return f"{name} (choose --method#{name})"
    known = [one for one in config if one != name and not one.startswith("_") and one not in _OF_MONAI]
    near = difflib.get_close_matches(name, known, 1, 0.75)
    return f"{name} (did you mean {near[0]}?)" if near else f"{name} (leave it out)"
