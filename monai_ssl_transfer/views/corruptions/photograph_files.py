"""What storing and sending does to photographs; it reaches the black border and its text, too."""

from __future__ import annotations

import cv2
import numpy as np


def jpeg(frame: np.ndarray, random: np.random.Generator, quality: float) -> np.ndarray:
    """JPEG of libjpeg with halved colour resolution, at the picture's own size.

    Args:
        frame: (H, W, 3) float32 from 0 to 1.
        random: not used.
        quality: 1 to 100.
    """
    stored = cv2.cvtColor(np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8), cv2.COLOR_RGB2BGR)
    _, code = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    seen = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
    return cv2.cvtColor(seen, cv2.COLOR_BGR2RGB).astype(np.float32) / 255


def down_sampling(frame: np.ndarray, random: np.random.Generator, share: float) -> np.ndarray:
    """Stored with `share` of its rows and columns (averaged) and brought back (bilinear)."""
    rows, columns = (max(1, round(n * share)) for n in frame.shape[:2])
    small = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)
