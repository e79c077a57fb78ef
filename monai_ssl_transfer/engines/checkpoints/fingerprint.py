"""What decides the result of a run, as plain text: a run is recognised by it when it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.file_hash import file_sha256
from monai_ssl_transfer.networks.checkpointing import CheckpointedStage
from monai_ssl_transfer.networks.encoders import SPECS
from monai_ssl_transfer.weights import encoder_facts
from monai_ssl_transfer.weights.facts import remembered
from monai_ssl_transfer.weights.key_maps import attention_heads
from monai_ssl_transfer.weights.read import encoder_path

_SCHEDULED = {"params", "lr", "weight_decay"}
# how torch computes; versions of it add such names
_TECHNICAL = {"foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"}


def method_text(method: nn.Module) -> str:
    """A method with its networks and options, without activation checkpointing, which changes no result.

    A ViT's number of attention heads, which its own text leaves out, is added where it is not the usual one.

    Args:
        method: the ``SSLMethod``; its ``extra_repr`` must hold what its tensors' shapes do not tell.
    """
    text = repr(method).replace(CheckpointedStage.__name__, nn.Sequential.__name__)
    spec = SPECS["vit_small_moco_v3"]
    encoder = getattr(method, "encoder", None)
    unusual = getattr(encoder, "num_features", 0) == spec.width and attention_heads(method) == spec.heads
    return f"{text}, {spec.heads} attention heads" if unusual else text


def optimizer_text(optimizer: Optimizer) -> str:
    """An optimizer's own settings (betas, momentum, a group's rate), without those that the schedule sets.

    Args:
        optimizer: as it was built.
    """
    groups = [
        {name: group[name] for name in sorted(group) if name not in _SCHEDULED | _TECHNICAL}
        for group in optimizer.param_groups
    ]
    return str(groups)


def file_hash(file: str | Path | None) -> str | None:
    """SHA-256 of an encoder's file, the same whether it, its folder or its card is named.

    Args:
        file: None gives None.

    Raises:
        WeightsError: when it cannot be read.
    """
    if file is None:
        return None
    path = encoder_path(file)
    if (facts := remembered(path)) is not None:
        return facts.sha256
    try:
        return file_sha256(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); give another --encoder_weights.") from error


def source_of(file: str | Path | None) -> dict[str, Any] | None:
    """Where an encoder's first weights came from, for its card: names no folder.

    Args:
        file: as ``weights.read_encoder`` takes it; None gives None.

    Returns:
        "file" (its name), "sha256" and, where its card says them, "licence" and "method".
    """
    if file is None:
        return None
    facts = encoder_facts(file)
    said = {"licence": facts.card.licence, "method": facts.card.method}
    return {"file": Path(file).name, "sha256": facts.sha256} | {name: value for name, value in said.items() if value}
