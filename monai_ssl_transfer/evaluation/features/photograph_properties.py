"""Properties of a photograph or frame of a video."""

from __future__ import annotations

import numpy as np

from monai_ssl_transfer.data.endoscopy.borders import field_of_view
from monai_ssl_transfer.evaluation.features.properties import Property, entropy, gradient, mirror_symmetry, noise

PHOTOGRAPH_PROPERTIES = (
    Property("brightness", "Brightness", "of 255"),
    Property("contrast", "Contrast (SD of brightness)", "of 255"),
    Property("entropy", "Variety of grey values (entropy)", "bit"),
    Property("sharpness", "Sharpness (mean gradient)", "per pixel"),
    Property("redness", "Redness"),
    Property("colourfulness", "Colourfulness"),
    Property("dark", "Share of dark pixels"),
    Property("highlights", "Share of highlights"),
    Property("border", "Share of black border"),
    Property("symmetry", "Left-right symmetry"),
    Property("noise", "Noise", "of 255"),
    Property("aspect", "Width / height"),
)
_DARK, _GLARE = 40, 230
_LUMINANCE = np.array([0.299, 0.587, 0.114])


def photograph_properties(frame: np.ndarray) -> dict[str, float]:
    """Measure a photograph within its field of view, without black border.

    Args:
        frame: (rows, columns, 3) uint8 RGB.

    Returns:
        A number per `PHOTOGRAPH_PROPERTIES`; colourfulness as by Hasler and Suesstrunk (2003), redness as the red
        share of all light.
    """
    top, bottom, left, right = field_of_view(frame)
    colours = frame[top:bottom, left:right].astype(np.float64)
    grey = colours @ _LUMINANCE
    return {
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "entropy": entropy(grey, 0, 255),
        "sharpness": float(gradient(grey).mean()),
        "redness": float(colours[..., 0].sum() / max(colours.sum(), 1)),
        "colourfulness": colourfulness(colours),
        "dark": float((grey < _DARK).mean()),
        "highlights": float((colours.min(axis=2) > _GLARE).mean()),
        "border": float(1 - grey.size / (frame.shape[0] * frame.shape[1])),
        "symmetry": mirror_symmetry(grey),
        "noise": noise(grey, np.ones(grey.shape, dtype=bool)),
        "aspect": frame.shape[1] / frame.shape[0],
    }


def colourfulness(colours: np.ndarray) -> float:
    """Hasler and Suesstrunk, SPIE 5007, 2003: spread and mean of the two opponent colours.

    Args:
        colours: (rows, columns, 3) RGB from 0 to 255.
    """
    red_green = colours[..., 0] - colours[..., 1]
    yellow_blue = (colours[..., 0] + colours[..., 1]) / 2 - colours[..., 2]
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))
