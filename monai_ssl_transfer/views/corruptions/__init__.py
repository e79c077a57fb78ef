"""Corruptions of photographs and CT with five published severities, seeded per image."""

from __future__ import annotations

from monai_ssl_transfer.views.corruptions.apply import corrupt_ct, corrupt_photograph
from monai_ssl_transfer.views.corruptions.severities import CORRUPTIONS, CT, PHOTOGRAPH, SEVERITIES

__all__ = ["CORRUPTIONS", "CT", "PHOTOGRAPH", "SEVERITIES", "corrupt_ct", "corrupt_photograph"]
