"""Encoders in files: the card, saving, key maps, loading with a report."""

from __future__ import annotations

from monai_ssl_transfer.weights.built import load_encoder
from monai_ssl_transfer.weights.card import EncoderCard
from monai_ssl_transfer.weights.load import load_encoder_weights, starting_from
from monai_ssl_transfer.weights.projection import save_projection_head
from monai_ssl_transfer.weights.read import encoder_facts, read_encoder
from monai_ssl_transfer.weights.report import LoadReport
from monai_ssl_transfer.weights.save import save_encoder

__all__ = [
    "EncoderCard",
    "LoadReport",
    "encoder_facts",
    "load_encoder",
    "load_encoder_weights",
    "read_encoder",
    "save_encoder",
    "save_projection_head",
    "starting_from",
]
