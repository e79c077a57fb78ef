"""The field of view of an endoscope within a frame: without black border and burnt-in text."""

from __future__ import annotations

import cv2
import numpy as np

from monai_ssl_transfer.data.endoscopy.frames import largest_channel

# Largest channel from which a pixel counts as lit: above JPEG noise around text and the glow of the sensor's edge.
_LIT = 24
# A row or column of which a smaller share is lit shows border or text ...
_SHARE = 0.25
# ... unless the picture is small within the frame, lighting less than this share of any: then a share of the fullest.
_SMALL = 0.5
# A field of view that is shorter than this share of the frame's side is none: a reflex in a dark frame.
_SHORTEST = 0.125


def field_of_view(frame: np.ndarray) -> tuple[int, int, int, int]:
    """Find the part of a frame that shows tissue: without the black border and text in it.

    Patient's and examination's data stand in the border left of the picture, where they light few pixels of each row
    and column. Text within the picture (as in the cut frames of Kvasir-SEG) and the scope guide's box stay.

    Args:
        frame: (rows, columns, 3) uint8.

    Returns:
        Top, bottom, left and right: ``frame[top:bottom, left:right]`` is the field of view. The whole frame, where
        none is found.
    """
    lit = cv2.threshold(largest_channel(frame), _LIT, 1, cv2.THRESH_BINARY)[1]
    top, bottom = _extent(cv2.reduce(lit, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel())
    left, right = _extent(cv2.reduce(lit, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel())
    if bottom - top < _SHORTEST * frame.shape[0] or right - left < _SHORTEST * frame.shape[1]:
        return 0, frame.shape[0], 0, frame.shape[1]
    return top, bottom, left, right


def _extent(shares: np.ndarray) -> tuple[int, int]:
    """First and one past the last row (column) with enough lit pixels; nothing where none is lit."""
    fullest = shares.max(initial=0)
    full = np.flatnonzero(shares > (_SHARE if fullest >= _SMALL else _SHARE * fullest))
    return (int(full[0]), int(full[-1]) + 1) if len(full) else (0, 0)
