"""What an encoder's tensors must be before anything computes with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.encoders import encoder_spec
from monai_ssl_transfer.weights.key_maps import BATCH_COUNTER
from monai_ssl_transfer.weights.reading.files import Checkpoint
from monai_ssl_transfer.weights.reading.formats import FoundEncoder, find_encoder, holders_of

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
COUNTS = (*FLOATS, torch.int16, torch.int32, torch.int64)


def find_checked(checkpoint: Checkpoint, patch_size: int | None = None) -> FoundEncoder:
    """Find the encoder in a file and make sure that its tensors are plain ones of real numbers.

    Args:
        checkpoint: the file.
        patch_size: as for `find_encoder`.

    Raises:
        WeightsError: as `find_encoder`, and for tensors of other types, sparse ones, and ones without values.
    """
    try:
        found = find_encoder(checkpoint, patch_size)
    except (RuntimeError, TypeError) as error:
        # some formats are told apart, or put together, by computing with tensors
        for tensors in holders_of(checkpoint.content).values():
            check_tensors(tensors, checkpoint.file, cause=error)
        raise
    check_tensors(found.state, checkpoint.file)
    return found


def check_tensors(state: Mapping[str, Tensor], file: Path, cause: Exception | None = None) -> None:
    """Refuse tensors that no encoder can be made of.

    Args:
        state: names to tensors.
        file: where they come from, for the message.
        cause: what computing with them ended in.

    Raises:
        WeightsError: for the first one, with its type.
    """
    for name, tensor in state.items():
        allowed = COUNTS if name.endswith(BATCH_COUNTER) else FLOATS
        if tensor.is_meta or tensor.layout != torch.strided or tensor.dtype not in allowed:
            raise WeightsError(
                f"{file} holds {name} as a {_kind(tensor)} and not as plain numbers of float16, bfloat16, float32 or "
                "float64: convert the network with .float() where it was made and save its state dict again."
            ) from cause


def not_finite(state: Mapping[str, Tensor]) -> tuple[str, ...]:
    """The names of the tensors that hold NaN or infinity."""
    return tuple(
        name for name, tensor in state.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    )


def position_grid(shape: Sequence[int], architecture: str) -> int:
    """Side of the square grid that a ViT's position embedding is made for; 0 if its shape is that of none.

    Args:
        shape: of the embedding, (1, prefix + patches, D).
        architecture: one of `networks.encoder_names()`.
    """
    patches = shape[1] - encoder_spec(architecture).prefix_positions if len(shape) == 3 and shape[0] == 1 else 0
    side = math.isqrt(max(patches, 0))
    return side if side**2 == patches else 0


def _kind(tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        return f"tensor of {dtype} without values (device meta)"
    layout = "" if tensor.layout == torch.strided else str(tensor.layout).removeprefix("torch.").replace("_", " ") + " "
    return f"{layout}tensor of {dtype}"
