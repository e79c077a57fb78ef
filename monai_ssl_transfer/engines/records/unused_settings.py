"""Settings that no part of a training asks for: MONAI takes any name on its command line and says nothing."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from monai.bundle import ConfigParser

from monai_ssl_transfer.engines.records.run_config import running_parser
from monai_ssl_transfer.errors import TrainingError

_REFERENCE = re.compile(r"[@%](\w+)")
_OF_MONAI = {
    "imports", "initialize", "run", "finalize", "bundle_root", "workflow_type", "workflow", "workflow_name",
    "tracking", "tracking_uri", "experiment_name", "run_name", "save_execute_config", "is_not_rank0",
}  # fmt: skip
_OF_SOME_METHODS = {"temperature", "preset", "vit"}
"""Settings of train.json that a method may do without; it stands there all the same."""

_CONDITIONS: dict[str, tuple[str, Callable[[Any], bool], str]] = {
    "adam_betas": ("optimizer_name", lambda name: name == "adamw", "only the optimizer adamw has them"),
    "pooling": ("vit", bool, "only a ViT has tokens to choose from"),
    "local_views": ("recipe_name", lambda name: name in ("dino", "dinov2"), "only dino and dinov2 have such views"),
    "frozen_stages": ("frozen_epochs", bool, "give --frozen_epochs too"),
    "frozen_epochs": ("frozen_stages", bool, "give --frozen_stages too"),
    "epochs": ("total_images", lambda images: images is None, "total_images says how long the run is"),
    "warmup_epochs": ("warmup_images", lambda images: images is None, "warmup_images says how long the warm-up is"),
    "method_name": ("method_name", lambda _: False, "the overlays of configs/methods choose a method"),
    "vit": ("vit", lambda _: False, "it follows from encoder_name"),
}
"""What a setting that is typed is used under: the value of this other setting, and what to say where it is not so."""
_COMPUTED = {"optimizer_name", "vit", "recipe_name", "frozen_stages"}
"""Settings that follow from others, but not from data or processes, which are not there yet."""


def refuse_unused_settings() -> None:
    """Refuse settings that have no effect; bundles call this in ``initialize``.

    Such a setting is misspelled, belongs to another method or needs another setting beside it, and the run would
    silently be another one than asked for.

    Raises:
        TrainingError: names the settings, and what was probably meant.
    """
    parser = running_parser()
    if parser is None:
        return
    config, typed = parser.get(), typed_settings(sys.argv)
    found = [_with_remedy(name, config) for name in unused_settings(config, typed)]
    if found := found or settings_without_effect(parser, typed):
        raise TrainingError(f"Nothing in this training (method {config.get('method_name')}) uses {', '.join(found)}.")


def unused_settings(config: dict[str, Any], typed: set[str]) -> list[str]:
    """The top-level names of a configuration that nothing in it refers to.

    Args:
        config: merged, not computed yet.
        typed: names on the command line; elsewhere ``temperature``, for example, may stand unused.
    """
    used = {name for text in _texts(config) for name in _REFERENCE.findall(text)} | _OF_MONAI
    idle = _OF_SOME_METHODS - typed
    return [name for name in config if not name.startswith("_") and name not in used | idle]


def settings_without_effect(parser: ConfigParser, typed: set[str]) -> list[str]:
    """Settings of a command line that something refers to, but that another setting makes idle; with the reason.

    Args:
        parser: of the run.
        typed: names on the command line; files may set such values, for another encoder or optimizer.
    """
    config = parser.get()

    def value(name: str) -> Any:
        return parser.get_parsed_content(name) if name in _COMPUTED else config[name]

    return [
        f"{name} ({reason})"
        for name, (other, suits, reason) in _CONDITIONS.items()
        if name in typed and config.get(name) and other in config and not suits(value(other))
    ]


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
