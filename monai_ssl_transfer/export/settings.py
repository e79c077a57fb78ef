"""The settings of a run as people read them: references replaced by what they point at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_ssl_transfer.export.run_folder import FinishedRun, read_json

_RUN_RECORD = "run.json"
_DEEPEST = 8


def shown_settings(run: FinishedRun) -> dict[str, Any]:
    """The settings of a run without references; what only its code would compute is left out.

    Args:
        run: a pretraining has recorded what it computed, which comes first.
    """
    record = run.folder / _RUN_RECORD
    starts = read_json(record).get("starts") or [{}] if record.is_file() else [{}]
    computed = starts[-1].get("values") or {}
    settings: dict[str, Any] = {}
    for name, raw in run.config.items():
        value = resolved(raw, run.config | computed)
        if value is None and raw is not None:
            value = computed.get(name)
        if value is not None or raw is None:
            settings[name] = value
    return settings


def resolved(value: Any, settings: Mapping[str, Any], depth: int = 0) -> Any:
    """A value with its references replaced.

    Args:
        value: of a setting.
        settings: that it may refer to.
        depth: of references that led here.

    Returns:
        None for an expression; entries of a dictionary that are expressions are left out.
    """
    if isinstance(value, str) and value.startswith("@"):
        return resolved(settings.get(value[1:]), settings, depth + 1) if depth < _DEEPEST else None
    if isinstance(value, str) and value.startswith(("$", "%")):
        return None
    if isinstance(value, Mapping):
        found = {key: resolved(one, settings, depth) for key, one in value.items()}
        return {key: one for key, one in found.items() if one is not None}
    if isinstance(value, list):
        return [resolved(one, settings, depth) for one in value]
    return value


def plain(value: Any) -> str:
    """A value in words, for a table."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, Mapping):
        kind = str(value.get("_target_", "")).rpartition(".")[2]
        shown = {key: one for key, one in value.items() if not str(key).startswith("_")}
        rest = ", ".join(
            f"{key} [{plain(one)}]" if isinstance(one, list) else f"{key} {plain(one)}" for key, one in shown.items()
        )
        return f"{kind} ({rest})" if kind and rest else kind or rest
    return str(value)
