"""What learnt in an adapted network, without the encoder that it was added to: a file of megabytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import TrainingError, WeightsError
from monai_ssl_transfer.networks.adapters import ADAPTATIONS, AppliedAdaptation, applied_adaptation
from monai_ssl_transfer.weights.load import load_encoder_weights
from monai_ssl_transfer.weights.report import first_names
from monai_ssl_transfer.weights.save import ADAPTER_KEY, hash_tensors

ADAPTER_NAME = "adapter.safetensors"
ADAPTER_FORMAT = 1
POSITIONS = ("pos_embed", "position_embeddings")
"""A ViT's, which are resampled to the size of the image and so are not the same bits everywhere."""


def save_adapter(network: nn.Module, file: str | Path) -> Path:
    """Write the tensors of an adapted network that do not belong to its frozen encoder.

    Args:
        network: adapted by `networks.adapters.adapt`.
        file: `adapter.safetensors`; replaced in one step.

    Returns:
        The file.

    Raises:
        WeightsError: when the network is not adapted, or the disk is full.
    """
    path, applied = Path(file), applied_adaptation(network)
    if applied is None:
        raise WeightsError(
            f"{path} was not written because the network is not adapted: run with an overlay of configs/protocols "
            "such as lora.json, or keep models/model.pt."
        )
    about = {
        "format": ADAPTER_FORMAT,
        "adaptation": applied.name,
        "settings": applied.settings,
        "frozen_encoder_hash": frozen_hash(network, applied),
    }
    state = {name: one.detach().cpu().contiguous().clone() for name, one in _learnt(network, applied).items()}
    content = to_safetensors(state, metadata={ADAPTER_KEY: json.dumps(about)})
    try:
        write_durably(path, lambda stream: stream.write(content))
    except OSError as error:
        raise WeightsError(f"{path} could not be written ({error.strerror}): free space there.") from error
    return path


def load_adapter(network: nn.Module, file: str | Path, encoder_weights: str | Path) -> nn.Module:
    """Put an adapter and the encoder that it belongs to into a network.

    Args:
        network: a fresh one, built as in the adapter's run; changed in place.
        file: `adapter.safetensors`.
        encoder_weights: what the run started from, as for `load_encoder_weights`.

    Returns:
        The network, adapted: it can be trained on, and `merged_state` gives the plain network's weights.

    Raises:
        WeightsError: when anything does not fit; the network is then of no use.
    """
    load_encoder_weights(network, encoder_weights)
    SavedAdaptation(file).apply(network)
    return network


@dataclass(frozen=True)
class SavedAdaptation:
    """An `Adaptation` that goes on from what an earlier run learnt, over the same encoder.

    Args:
        file: `adapter.safetensors` of that run.
    """

    file: str | Path

    def apply(self, network: nn.Module) -> None:
        """Adapt a network with its encoder in it as that run did, and give it what learnt.

        Raises:
            WeightsError: for a file that is no adapter, another encoder or another network.
        """
        state, about = _read(Path(self.file))
        try:
            ADAPTATIONS[about["adaptation"]](**about["settings"]).apply(network)
        except TrainingError as error:
            raise WeightsError(
                f"{self.file} does not fit this {type(network).__name__} ({error}): build the network of its run."
            ) from error
        applied = applied_adaptation(network)
        expected = _learnt(network, applied) if applied is not None else {}
        wrong = [
            name
            for name in sorted(expected.keys() | state.keys())
            if name not in expected or name not in state or expected[name].shape != state[name].shape
        ]
        if wrong:
            raise WeightsError(
                f"{self.file} does not fit this {type(network).__name__} ({len(wrong)} tensors are missing, left over "
                f"or of another shape: {first_names(tuple(wrong))}): build the network of its run."
            )
        if applied is None or frozen_hash(network, applied) != about["frozen_encoder_hash"]:
            raise WeightsError(
                f"{self.file} belongs to another encoder than the one in this {type(network).__name__}: give the "
                "encoder_weights that its run started from (encoder_load.json of the run names them)."
            )
        with torch.no_grad():
            network.load_state_dict(state, strict=False)


def frozen_hash(network: nn.Module, applied: AppliedAdaptation) -> str:
    """Hash of all that stands still in an adapted encoder, the same before, during and after training."""
    state = network.state_dict()
    return hash_tensors({name: state[name] for name in applied.frozen if name in state and _counts(name)})


def _counts(name: str) -> bool:
    return not name.endswith(POSITIONS)


def _learnt(network: nn.Module, applied: AppliedAdaptation) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if name not in applied.frozen}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise WeightsError(f"{path} does not exist: give the {ADAPTER_NAME} in the models folder of an adapted run.")
    try:
        with safe_open(path, framework="pt") as reader:
            metadata = reader.metadata() or {}
            state = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged ({error}): copy it again from its run.") from error
    try:
        about = json.loads(metadata.get(ADAPTER_KEY, "{}"))
    except json.JSONDecodeError:
        about = {}
    if about.get("format") != ADAPTER_FORMAT or about.get("adaptation") not in ADAPTATIONS:
        raise WeightsError(
            f"{path} is no adapter that this version can read: give the {ADAPTER_NAME} in the models folder of an "
            "adapted run."
        )
    return state, about
