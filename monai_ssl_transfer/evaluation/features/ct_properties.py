"""Properties of a CT slice."""

from __future__ import annotations

import cv2
import numpy as np

from monai_ssl_transfer.evaluation.features.properties import Property, entropy, gradient, mirror_symmetry, noise

CT_PROPERTIES = (
    Property("body_area", "Area of the body", "cm²"),
    Property("body_share", "Share of the picture that is body"),
    Property("mean", "Mean density of the body", "HU"),
    Property("contrast", "Contrast (SD within the body)", "HU"),
    Property("entropy", "Variety of densities (entropy)", "bit"),
    Property("sharpness", "Sharpness (mean gradient)", "HU/mm"),
    Property("air", "Share of air within the body"),
    Property("bone", "Share of bone within the body"),
    Property("symmetry", "Left-right symmetry"),
    Property("noise", "Noise", "HU"),
    Property("pixel_size", "Pixel size", "mm"),
)
AIR, BONE = -500.0, 250.0
_LOW, _HIGH = -1000.0, 1000.0


def ct_properties(hu: np.ndarray, spacing: tuple[float, float]) -> dict[str, float]:
    """Measure a slice; densities are cut to -1000..1000 HU, so that metal and padding do not decide.

    Args:
        hu: (rows, columns) in HU.
        spacing: (row, column) in mm; 1 mm where it is not known (0).

    Returns:
        A number per `CT_PROPERTIES`.
    """
    spacing = (spacing[0] or 1.0, spacing[1] or 1.0)
    plane = np.clip(hu.astype(np.float64), _LOW, _HIGH)
    body = body_mask(plane)
    inside = plane[body]
    rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
    box = plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return {
        "body_area": float(body.sum() * spacing[0] * spacing[1] / 100),
        "body_share": float(body.mean()),
        "mean": float(inside.mean()),
        "contrast": float(inside.std()),
        "entropy": entropy(inside, _LOW, _HIGH),
        "sharpness": float(gradient(plane, spacing)[body].mean()),
        "air": float((inside < AIR).mean()),
        "bone": float((inside > BONE).mean()),
        "symmetry": mirror_symmetry(box),
        "noise": noise(plane, body),
        "pixel_size": float(np.sqrt(spacing[0] * spacing[1])),
    }


def body_mask(hu: np.ndarray) -> np.ndarray:
    """The largest connected part above -500 HU and what it encloses (lungs, bowel gas); all pixels where there is none.

    Args:
        hu: (rows, columns) in HU.

    Returns:
        (rows, columns) bool.
    """
    dense = (hu > AIR).astype(np.uint8)
    count, parts, facts, _ = cv2.connectedComponentsWithStats(dense, connectivity=4)
    if count < 2:
        return np.ones(hu.shape, dtype=bool)
    largest = (parts == 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    # What the air around can reach from beyond the edge is outside; all else is enclosed by the body.
    around = cv2.copyMakeBorder(1 - largest, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, regions = cv2.connectedComponents(around, connectivity=4)
    return np.asarray(regions[1:-1, 1:-1] != regions[0, 0])
