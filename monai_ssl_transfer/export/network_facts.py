"""What the exported network is: built as the bundle builds it, filled completely, and tried."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_ssl_transfer.errors import ExportError

_SIDE = 64
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class NetworkFacts:
    """What trying the network showed.

    Args:
        network: in eval mode, with the run's weights.
        in_channels: of its input.
        out_channels: of its output; ``None`` where it returns more than one tensor.
        any_size: whether it takes other sizes than ``image_size``.
        parameters: how many numbers it has.
        script: its TorchScript; ``None`` where it has none.
        no_script: why it has none.
    """

    network: nn.Module
    in_channels: int
    out_channels: int | None
    any_size: bool
    parameters: int
    script: torch.jit.ScriptModule | None
    no_script: str = ""


def network_facts(inference: Mapping[str, Any], state: Mapping[str, Tensor], weights: str) -> NetworkFacts:
    """Build the network of an inference configuration, fill it, and try it.

    Args:
        inference: with this package's own components, not yet those of ``scripts``.
        state: of the run.
        weights: name of the file, for messages.

    Raises:
        ExportError: the weights do not fit, are not finite, or the network fails.
    """
    parser = ConfigParser({**inference, "device": "cpu"})
    network = parser.get_parsed_content("network_def").cpu().eval()
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ExportError(
            f"{weights} does not fit the network of its run's config.json ({str(error).splitlines()[-1].strip()}): "
            "export the folder as the training left it."
        ) from error
    broken = next((name for name, one in state.items() if one.is_floating_point() and not one.isfinite().all()), None)
    if broken is not None:
        raise ExportError(f"{weights} holds NaN or infinity in {broken}: train again with a lower learning rate.")
    channels = _in_channels(inference)
    side = int(parser.get_parsed_content("image_size")) if "image_size" in inference else _SIDE
    found = _try(network, channels, side)
    if found is None:
        raise ExportError(f"the network of {weights} takes no image of {channels} x {side} x {side}: mend image_size.")
    script, reason = _script(network, channels, side)
    return NetworkFacts(
        network,
        channels,
        int(found.shape[1]) if isinstance(found, Tensor) and found.dim() > 1 else None,
        _try(network, channels, side + 32) is not None,
        sum(one.numel() for one in network.parameters()),
        script,
        reason,
    )


def _in_channels(inference: Mapping[str, Any]) -> int:
    definition = inference["network_def"]
    found = next((definition[name] for name in ("in_channels", "n_input_channels") if name in definition), 3)
    return int(ConfigParser({**inference, "_wanted": found}).get_parsed_content("_wanted"))


def _input(network: nn.Module, channels: int, side: int) -> Any:
    x = torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    return [x[0]] if hasattr(network, "roi_heads") else x  # torchvision's detectors take a list


def _try(network: nn.Module, channels: int, side: int) -> Any:
    try:
        with torch.no_grad():
            return network(_input(network, channels, side))
    except (RuntimeError, ValueError, AssertionError):  # of a shape that it does not take
        return None


def _script(network: nn.Module, channels: int, side: int) -> tuple[torch.jit.ScriptModule | None, str]:
    """TorchScript that gives the same output when it is read back, or why there is none."""
    x = _input(network, channels, side)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", message=r".torch\.jit\.")  # MONAI asks for it
            script = torch.jit.script(network)
            stream = io.BytesIO()
            torch.jit.save(script, stream)
            stream.seek(0)
            expected, found = network(x), torch.jit.load(stream)(x)
    except Exception as error:  # noqa: BLE001  # the compiler raises whatever it stumbles over
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return None, f"TorchScript's compiler refuses it ({said.partition(' (')[0].strip()[:120]})"
    if isinstance(expected, Tensor):
        if not torch.allclose(expected, found, atol=_TOLERANCE, rtol=_TOLERANCE):
            return None, "its TorchScript gives another output"
        return script, ""
    return None, "it returns other values in TorchScript than in Python"
