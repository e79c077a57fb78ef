"""Quality of a relative depth map: errors in mm after the image's own scale and shift are taken out.

A network trained with a scale-and-shift-invariant loss predicts depth up to an unknown scale and shift. Each image is
therefore aligned to its ground truth by least squares over the valid pixels (depth above 0) before it is judged, as in
SSL4GIE (Sanderson and Matuszewski, IEEE Access 12, 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from monai_ssl_transfer.engines.transfer.depth_loss import scale_and_shift
from monai_ssl_transfer.errors import DataError


@dataclass(frozen=True)
class DepthMetrics:
    """One image.

    Args:
        rmse_mm: root of the mean squared error, mm.
        mae_mm: mean absolute error, mm.
        median_relative_error: median of the absolute error over the true depth, a share.
        scale: mm per unit of the prediction; below 0 where the network takes near for far.
        shift: mm.
        valid_pixels: pixels with a known depth; without any, all errors are nan.
    """

    rmse_mm: float
    mae_mm: float
    median_relative_error: float
    scale: float
    shift: float
    valid_pixels: int


def compute_depth_metrics(prediction: np.ndarray, depth: np.ndarray) -> DepthMetrics:
    """Judge one image at the size of its ground truth.

    Args:
        prediction: (H, W) relative depth, any unit; finite.
        depth: (H, W) true depth in mm; 0 where it is not known.

    Raises:
        DataError: different sizes, or a prediction that is not finite.
    """
    if prediction.shape != depth.shape:
        raise DataError(
            f"a predicted depth map is {prediction.shape} where the truth is {depth.shape}: "
            "bring it back to the size of the photograph before it is judged."
        )
    if not np.isfinite(prediction).all():
        raise DataError("a predicted depth map holds values that are not finite: train with a lower learning_rate.")
    mask = depth > 0
    if not mask.any():
        nan = float("nan")
        return DepthMetrics(nan, nan, nan, nan, nan, valid_pixels=0)
    x, y = prediction[mask].astype(np.float64), depth[mask].astype(np.float64)
    scale, shift = (
        float(value)
        for value in scale_and_shift(torch.from_numpy(x)[None], torch.from_numpy(y)[None], torch.ones(1, x.size) > 0)
    )
    error = np.abs(scale * x + shift - y)
    return DepthMetrics(
        rmse_mm=float(np.sqrt(np.mean(error**2))),
        mae_mm=float(error.mean()),
        median_relative_error=float(np.median(error / y)),
        scale=scale,
        shift=shift,
        valid_pixels=int(mask.sum()),
    )
