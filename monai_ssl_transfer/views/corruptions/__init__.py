"""Corruptions of photographs, CT and MR with five published severities, seeded per image."""

from __future__ import annotations

from monai_ssl_transfer.views.corruptions.apply import corrupt_ct, corrupt_mr, corrupt_photograph
from monai_ssl_transfer.views.corruptions.severities import CORRUPTIONS, CT, MR, PHOTOGRAPH, SEVERITIES

__all__ = ["CORRUPTIONS", "CT", "MR", "PHOTOGRAPH", "SEVERITIES", "corrupt_ct", "corrupt_mr", "corrupt_photograph"]
