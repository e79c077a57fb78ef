"""What the settings beside a file of weights say about its network that no tensor shows: heads, strides, dilation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ssl_transfer.networks.encoders import EncoderSpec

NETWORK_ENTRIES = ("network_def", "network")
"""Where MONAI's bundles and our runs describe their network."""
HUGGING_FACE = "num_attention_heads"
"""Entry of Hugging Face's config.json."""
EXACT_ACTIVATION = "gelu"
OWN = "monai_ssl_transfer."


@dataclass(frozen=True)
class NetworkSettings:
    """What is known of the network that weights are from.

    Args:
        known: whether settings were found that describe it.
        problem: what they say that no encoder of ours computes, as half a sentence; "" if nothing.
    """

    known: bool
    problem: str = ""


def network_settings(file: Path, spec: EncoderSpec) -> NetworkSettings:
    """Look for settings beside a file and compare them with an encoder of ours.

    Args:
        file: of weights: `models/model.pt` of a bundle or of a run, or a file of Hugging Face with its config.json.
        spec: of the encoder whose tensors the file has.
    """
    for path in _paths(file):
        config = _read(path)
        if HUGGING_FACE in config:
            return _compared(path, _hugging_face(config, spec))
        for entry in NETWORK_ENTRIES:
            network = config.get(entry)
            if isinstance(network, Mapping) and isinstance(network.get("_target_"), str):
                return _compared(path, _network(network, config, spec))
    return NetworkSettings(known=False)


def _paths(file: Path) -> list[Path]:
    bundle = file.parent.parent
    inside = [bundle / "config.json", bundle / "configs" / "train.json"] if file.parent.name == "models" else []
    return [file.with_name("config.json"), *inside]


def _read(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or it is somebody else's
        return {}
    return config if isinstance(config, Mapping) else {}


def _compared(path: Path, wanted: dict[str, tuple[Any, Any]]) -> NetworkSettings:
    """The settings as names to (what they are, what they must be)."""
    other = [f"{name} {given}, not {right}" for name, (given, right) in wanted.items() if given != right]
    problem = f"its network computes something else, as {path.name} beside it says ({'; '.join(other)})"
    return NetworkSettings(known=True, problem=problem if other else "")


def _hugging_face(config: Mapping[str, Any], spec: EncoderSpec) -> dict[str, tuple[Any, Any]]:
    if spec.family != "vit":
        return {}
    activation = config.get("hidden_act", EXACT_ACTIVATION)
    return {"num_attention_heads": (config[HUGGING_FACE], spec.heads), "hidden_act": (activation, EXACT_ACTIVATION)}


def _network(network: Mapping[str, Any], config: Mapping[str, Any], spec: EncoderSpec) -> dict[str, tuple[Any, Any]]:
    """The settings of a network's class or function, with its defaults where they are not given."""
    target = network["_target_"]
    name = target.rpartition(".")[2].lower()
    if target.startswith(OWN):
        return {}

    def value(setting: str, default: Any) -> Any:
        given = network.get(setting, default)
        if isinstance(given, str) and given.startswith("@"):
            given = config.get(given[1:], given)
        unread = isinstance(given, str) and given.startswith(("@", "$", "%"))
        given = default if unread else given
        return given[0] if isinstance(given, list) and len(set(map(str, given))) == 1 else given

    if target.startswith("torchvision."):
        dilated = value("replace_stride_with_dilation", None) or []
        return {"dilation": (any(dilated) or ".segmentation." in target, False)}
    if target.startswith("timm."):
        blurred = "blur" in str(value("model_name", ""))
        return {"output_stride": (value("output_stride", 32), 32), "blurred strides": (blurred, False)}
    if spec.family == "resnet" and name.startswith("resnet"):
        return {"conv1_t_stride": (value("conv1_t_stride", 1), 2), "no_max_pool": (value("no_max_pool", False), False)}
    if spec.family == "vit" and name in ("vit", "maskedautoencodervit"):
        return {"num_heads": (value("num_heads", 12), spec.heads)}
    return {}
