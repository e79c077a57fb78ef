"""Encoders for the networks of others: a file that timm, torchvision or MONAI loads strictly."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks.classification import MONAI_UNUSED
from monai_ssl_transfer.networks.encoders import SPECS
from monai_ssl_transfer.weights.completeness import BATCH_COUNTER, completeness
from monai_ssl_transfer.weights.converting.changes import ConvertOptions, change_shape, noted
from monai_ssl_transfer.weights.converting.reshape import State
from monai_ssl_transfer.weights.converting.targets import ConversionTarget, ReshapedEncoder, loading_code
from monai_ssl_transfer.weights.converting.targets_monai import for_monai_flexible_unet, for_monai_resnet, for_monai_vit
from monai_ssl_transfer.weights.converting.targets_timm import for_timm, for_torchvision
from monai_ssl_transfer.weights.key_maps import identify
from monai_ssl_transfer.weights.load import encoder_path, read_encoder
from monai_ssl_transfer.weights.reading.foreign import shapes_of
from monai_ssl_transfer.weights.save import check_finite, hash_tensors, write_tensors

__all__ = ["TARGETS", "ConvertOptions", "convert_file"]

logger = logging.getLogger(__name__)

NETWORKS: dict[str, Callable[[ReshapedEncoder], ConversionTarget]] = {
    "timm": for_timm,
    "torchvision": for_torchvision,
    "monai-resnet": for_monai_resnet,
    "monai-vit": for_monai_vit,
    "monai-flexible-unet": for_monai_flexible_unet,
}
TARGETS = tuple(NETWORKS)
"""Where a file can be converted to."""
GAINS = ("timm",)
"""Targets that have LayerScale; the others get the gains folded into the layers before them."""
SUFFIX = ".safetensors"


def convert_file(file: str | Path, to: str, out: str | Path, options: ConvertOptions | None = None) -> Path:
    """Write an encoder as a file that another library's network loads strictly.

    The log shows the Python that loads it; it is also in the file's metadata, under "load", beside the card with
    what was done.

    Args:
        file: as for `read_encoder`.
        to: one of `TARGETS`.
        out: the file to write, ending in .safetensors.
        options: changes of shape on the way.

    Returns:
        The path of the written file.

    Raises:
        WeightsError: if the file is no encoder, or the target cannot hold it.

    Example:
        >>> convert_file("encoder.safetensors", "monai-resnet", "resnet50.safetensors")  # doctest: +SKIP
    """
    options = options or ConvertOptions()
    if to not in TARGETS:
        raise WeightsError(f"There is no target {to!r}: choose one of {', '.join(TARGETS)}.")
    options.check()
    written = Path(out)
    _check_paths(encoder_path(file), written)
    given, card = read_encoder(file, options.patch_size)
    state, card, done = change_shape(given, card, options, gains=to in GAINS)
    encoder = ReshapedEncoder(
        state=state,
        architecture=identify(state, SPECS[card.architecture].heads)[0],
        origin=card.architecture,
        image_size=card.image_size,
        pooling=card.pooling or "token",
        spatial_dims=options.spatial_dims,
    )
    target = find_target(to, encoder)
    tensors = _complete({target.prefix + name: each for name, each in target.names(state).items()}, target, written)
    check_finite(tensors, written)
    card = replace(
        card,
        architecture=encoder.architecture or card.architecture,
        method=noted(card.method, [*done, f"converted to {to}"]),
        weights_hash=hash_tensors(tensors),
    )
    code = loading_code(target, written.name)
    write_tensors(written, tensors, card.to_json(), more={"target": to, "load": code})
    logger.info("%s holds %s for %s%s; it is loaded by\n%s", written, card.architecture, to, _listed(done), code)
    return written


def find_target(to: str, encoder: ReshapedEncoder) -> ConversionTarget:
    """The network for an encoder.

    Args:
        to: one of `TARGETS`.
        encoder: what it must hold.

    Raises:
        WeightsError: if no network of this kind can hold it, with what to do instead.
    """
    if encoder.spatial_dims == 3 and not to.startswith("monai"):
        raise WeightsError(f"{to} has no such network in 3-D: convert to monai-resnet or monai-vit, or leave it 2-D.")
    # no memory and no time for values that are replaced
    with torch.device("meta"):
        return NETWORKS[to](encoder)


def _complete(tensors: State, target: ConversionTarget, out: Path) -> State:
    """Add what the network has and never uses, and make sure that it then loads strictly.

    Raises:
        WeightsError: if anything is missing or left over.
    """
    wanted = {target.prefix + name: each for name, each in target.part.state_dict().items()}
    for name, each in wanted.items():
        if name not in tensors and MONAI_UNUSED in name:
            tensors[name] = torch.full(each.shape, 1.0 if name.endswith("weight") else 0.0)
        if name not in tensors and name.endswith(BATCH_COUNTER):  # old torchvision had none; nothing reads it
            tensors[name] = torch.zeros(each.shape, dtype=torch.long)
    different = completeness(tensors, shapes_of(wanted)).different
    if different:
        raise WeightsError(
            f"{out} was not written because {len(different)} tensors do not fit the network ({different[0]} is the "
            "first): give the file of a whole encoder."
        )
    return {name: tensors[name].contiguous() for name in wanted}


def _check_paths(file: Path, out: Path) -> None:
    if out.suffix != SUFFIX:
        raise WeightsError(f"{out} does not end in {SUFFIX}: name the converted file so.")
    if out.exists() and file.exists() and out.samefile(file):
        raise WeightsError(f"{out} is the file that is converted: write to another one.")


def _listed(done: list[str]) -> str:
    return f" ({'; '.join(done)})" if done else ""
