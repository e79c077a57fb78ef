"""What else lies in a checkpoint besides the encoder, by how its names start, and why it is not loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from monai_ssl_transfer.networks.classification import MONAI_UNUSED

STUDENT = "student; its moving average, the teacher, is used"
PARTS: dict[str, str] = {
    "momentum_encoder.": "momentum encoder; the trained one is used",
    "encoder_k.": "momentum encoder; the trained one is used",
    "backbone_momentum.": "momentum encoder; the trained one is used",
    "encoder_momentum.": "momentum encoder; the trained one is used",
    "target_encoder.": "momentum encoder; the trained one is used",
    "momentum_projection_head.": "projection head of the momentum encoder",
    "projection_head_momentum.": "projection head of the momentum encoder",
    "projection_head.": "projection head of the pretraining",
    "projector.": "projection head of the pretraining",
    "predictor.": "prediction head of the pretraining",
    "prediction_head.": "prediction head of the pretraining",
    "teacher_head.": "projection head of the pretraining",
    "student_head.": "projection head of the pretraining",
    "student_backbone.": STUDENT,
    "student_encoder.": STUDENT,
    "teacher_projection_head.": "projection head of the pretraining",
    "teacher_patch_projection_head.": "projection head of the pretraining",
    "patch_projection_head.": "projection head of the pretraining",
    "dino_head.": "projection head of DINO",
    "ibot_head.": "projection head of iBOT",
    "queue": "queue of keys of MoCo",
    "memory_bank": "queue of keys of MoCo",
    "centre.": "centre of DINO's teacher",
    "patch_centre.": "centre of iBOT's teacher",
    "ntxent.": "buffer of the loss",
    "criterion.": "buffer of the loss",
    "loss_criterion.": "buffer of the loss",
    "loss.": "buffer of the loss",
    "bn.": "batch norm of the loss of Barlow Twins",
    "mask_token": "token of hidden patches, which only pretraining uses",
    "decoder_": "decoder of the pretraining or of the task",
    "decoder.": "decoder of the task",
    "unet.upsample_blocks.": "decoder of the task",
    "unet.final_conv.": "output layer of the task",
    "upsample_blocks.": "decoder of the task",
    "final_conv.": "output layer of the task",
    "output_conv.": "output layer of the task",
    "segmentation_head.": "output layer of the task",
    "classification_head.": "head for classes",
    "classifier.": "head for classes",
    "pooler.": "head of Hugging Face's ViT, which no encoder here has",
    "embeddings.mask_token": "token of hidden patches, which only pretraining uses",
    "lin_head.": "head for classes",
    "linear_head.": "head for classes",
    "heads.": "head for classes",
    "head.": "head for classes or for pretraining",
    "fc.": "head for classes or for pretraining",
    "pre_logits.": "head for classes",
    "fpn.": "feature pyramid of the detector",
    "pyramid.": "feature pyramid of the decoder",
    "stem.": "feature pyramid of the decoder",
    "backbone.fpn.": "feature pyramid of the detector",
    "rpn.": "region proposals of the detector",
    "roi_heads.": "heads of the detector",
    "readout.": "decoder of the task",
}
"""Starts of names, at the level of the encoder or above it, and what they mean."""

AVERAGE = "moving average of the weights; the trained ones are used"
AVERAGES: dict[str, str] = {
    "state_dict_ema": AVERAGE,
    "model_ema": AVERAGE,
    "ema": AVERAGE,
    "ema_state_dict": AVERAGE,
    "momentum_encoder": "momentum encoder; the trained one is used",
    "encoder_momentum": "momentum encoder; the trained one is used",
}
"""Entries with moving averages of an encoder: used only where nothing else in the file is one."""
ENTRIES: dict[str, str] = {
    "optimizer": "state of the optimizer",
    "optimizer_state_dict": "state of the optimizer",
    "optimizer_states": "state of the optimizer",
    "optim": "state of the optimizer",
    "scaler": "state of mixed precision",
    "scaler_state_dict": "state of mixed precision",
    "fp16_scaler": "state of mixed precision",
    "scheduler": "state of the schedule",
    "lr_schedulers": "state of the schedule",
    "dino_loss": "centre of DINO's teacher",
    "random": "random states",
}
"""Entries of a checkpoint in which no encoder is looked for; others without tensors are counters and settings."""

COUNTERS = "counters and settings of the training"
BESIDE_ENTRY = "other tensors; those in {} are used"
UNUSED_NORM = "norm that MONAI builds and does not use"


def part_of(name: str) -> str:
    """Why a tensor is no part of an encoder, by its name at the encoder's level; "" if it may be one.

    Args:
        name: name of a tensor.
    """
    if MONAI_UNUSED in name:
        return UNUSED_NORM
    return next((why for start, why in PARTS.items() if name.startswith(start)), "")


def entry_of(name: str, value: Any, used: str) -> str:
    """Why an entry of a checkpoint beside the chosen one is not used.

    Args:
        name: name of the entry.
        value: what it holds.
        used: the entry that is used.
    """
    if known := ENTRIES.get(name):
        return known
    if not _holds_tensors(value):
        return COUNTERS
    return AVERAGES.get(name) or (STUDENT if (name, used) == ("student", "teacher") else BESIDE_ENTRY.format(used))


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_tensors(each) for each in value.values())
    return isinstance(value, Tensor)
