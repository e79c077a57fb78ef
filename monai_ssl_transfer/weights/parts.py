"""What else lies in a checkpoint besides the encoder, by how its names start, and why it is not loaded."""

from __future__ import annotations

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
    "student_backbone.": "student; its moving average, the teacher, is used",
    "student_encoder.": "student; its moving average, the teacher, is used",
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

ENTRIES: dict[str, str] = {
    "student": "student; its moving average, the teacher, is used",
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
"""Entries of a checkpoint beside the one with the encoder; others are counters and settings of the training."""

COUNTERS = "counters and settings of the training"
MONAI_CROSS_ATTENTION = ".norm_cross_attn."
UNUSED_NORM = "norm that MONAI builds and does not use"


def part_of(name: str) -> str:
    """Why a tensor is no part of an encoder, by its name at the encoder's level; "" if it may be one.

    Args:
        name: name of a tensor.
    """
    if MONAI_CROSS_ATTENTION in name:
        return UNUSED_NORM
    return next((why for start, why in PARTS.items() if name.startswith(start)), "")


def entry_of(name: str) -> str:
    """Why an entry of a checkpoint beside the chosen one is not used.

    Args:
        name: name of the entry.
    """
    return ENTRIES.get(name, COUNTERS)
