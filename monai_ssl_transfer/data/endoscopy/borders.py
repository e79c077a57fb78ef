"""The field of view of an endoscope within a frame: without black border and burnt-in text."""

from __future__ import annotations

import cv2
import numpy as np

# Largest channel from which a pixel counts as lit: above JPEG noise around text and the glow of the sensor's edge.
_LIT = 24
# A row or column of which a smaller share is lit shows border or text.
_SHARE = 0.25


def field_of_view(frame: np.ndarray) -> tuple[int, int, int, int]:
    """Find the part of a frame that shows tissue.

    Args:
        frame: (rows, columns, 3) uint8.

    Returns:
        Top, bottom, left and right: ``frame[top:bottom, left:right]`` is the field of view. The whole frame, where
        none is found.
    """
    lit = cv2.threshold(frame.max(axis=2), _LIT, 1, cv2.THRESH_BINARY)[1]
    rows, columns = np.flatnonzero(lit.mean(axis=1) > _SHARE), np.flatnonzero(lit.mean(axis=0) > _SHARE)
    if not len(rows) or not len(columns):
        return 0, frame.shape[0], 0, frame.shape[1]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
