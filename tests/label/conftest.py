"""Fixtures of the label tests; what they are made of is in ``tiny_label``, which tests import by name."""

from __future__ import annotations

from tiny_label import exported, frames_server, label_app, studies_ct, studies_frames, volumes_server

__all__ = ["exported", "frames_server", "label_app", "studies_ct", "studies_frames", "volumes_server"]
