"""Loss for relative depth: invariant to the scale and the shift of the prediction, with a gradient term.

Source: Ranftl et al., Towards Robust Monocular Depth Estimation: Mixing Datasets for Zero-shot Cross-dataset Transfer,
IEEE TPAMI 44 (2022), equations 1 to 5 and 11.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_ssl_transfer.errors import TrainingError

CONSTANT = 32.0
"""A prediction whose spread is within so many units of rounding of its values counts as constant."""


def scale_and_shift(prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares per image, in closed form: the scale s and shift t for which s * prediction + t is next to target.

    A constant prediction (one valid pixel is one, too) has no scale: s is 0 and t the mean of the target. Without a
    valid pixel both are 0. The result is differentiable with respect to the prediction.

    Args:
        prediction: (B, ...) float, any unit.
        target: (B, ...) float.
        mask: (B, ...) bool, the valid pixels; values elsewhere may be anything, even nan.

    Returns:
        s and t, (B,) each, of the prediction's dtype.
    """
    images = prediction.shape[0]
    valid = mask.reshape(images, -1)
    x = torch.where(valid, prediction.reshape(images, -1), 0)
    y = torch.where(valid, target.reshape(images, -1).to(x.dtype), 0)
    count = valid.sum(dim=1).clamp(min=1).to(x.dtype)
    mean_x, mean_y = x.sum(dim=1) / count, y.sum(dim=1) / count
    # Centred first: the usual determinant of sums of squares cancels in float32 for an image of a million pixels.
    centred_x = torch.where(valid, x - mean_x[:, None], 0)
    centred_y = torch.where(valid, y - mean_y[:, None], 0)
    variance = centred_x.square().sum(dim=1) / count
    covariance = (centred_x * centred_y).sum(dim=1) / count
    rounding = CONSTANT * torch.finfo(x.dtype).eps * x.detach().abs().amax(dim=1)
    varies = variance > rounding.square()
    scale = torch.where(varies, covariance / torch.where(varies, variance, 1), 0)
    return scale, mean_y - scale * mean_x


class ScaleShiftInvariantLoss(nn.Module):
    """Half the mean squared error after alignment, plus a multi-scale gradient term of the remaining difference.

    Each image is aligned to its own target (`scale_and_shift`), so that the network owes only the shape of the depth.
    The gradient term compares neighbours at full resolution and at every 2nd, 4th and 8th pixel. An image without a
    valid pixel adds nothing; a batch without any has the loss 0.

    As published, the scale may be negative, so that a network that takes near for far is not corrected. With
    ``upright`` the size of the scale is kept and its sign is positive: a prediction that rises with the target has
    exactly the published loss, one that falls has more than a constant one.

    Args:
        gradient_weight: of the gradient term (0.5 in the publication).
        scales: resolutions of the gradient term (4 in the publication).
        upright: see above; False is the published loss for every prediction.
    """

    def __init__(self, gradient_weight: float = 0.5, scales: int = 4, upright: bool = True) -> None:
        super().__init__()
        self.gradient_weight = gradient_weight
        self.scales = scales
        self.upright = upright

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare a batch of depth maps.

        Args:
            prediction: (B, 1, H, W) float, any scale and shift.
            target: (B, 1, H, W) float depth; 0 or less, or nan, is not valid.

        Returns:
            Scalar, the mean over the images that have a valid pixel.

        Raises:
            TrainingError: when the shapes differ.
        """
        if prediction.shape != target.shape:
            raise TrainingError(
                f"the network predicts {tuple(prediction.shape)} for depth of {tuple(target.shape)}: "
                "use a dense network with out_channels 1."
            )
        mask = target > 0
        scale, shift = scale_and_shift(prediction, target, mask)
        if self.upright:
            mean_error = (scale.abs() - scale) * _masked_mean(prediction, mask)
            scale, shift = scale.abs(), shift - mean_error
        aligned = scale[:, None, None, None] * prediction + shift[:, None, None, None]
        residual = torch.where(mask, aligned - target, 0)
        loss = _masked_mean(residual.square(), mask) / 2 + self.gradient_weight * self._gradients(residual, mask)
        known = mask.flatten(1).any(dim=1)
        return loss[known].mean() if bool(known.any()) else prediction.sum() * 0

    def _gradients(self, residual: Tensor, mask: Tensor) -> Tensor:
        """(B,) sum over the scales of the mean absolute difference of valid neighbours."""
        total = residual.new_zeros(len(residual))
        for step in (2**k for k in range(self.scales)):
            coarse, valid = residual[..., ::step, ::step], mask[..., ::step, ::step]
            count = valid.flatten(1).sum(dim=1).clamp(min=1)
            for axis in (-1, -2):
                size = coarse.shape[axis]
                pairs = valid.narrow(axis, 0, size - 1) & valid.narrow(axis, 1, size - 1)
                difference = torch.where(pairs, coarse.diff(dim=axis).abs(), 0)
                total = total + difference.flatten(1).sum(dim=1) / count
        return total


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """(B,) mean of the valid pixels of (B, ...); 0 without one."""
    count = mask.flatten(1).sum(dim=1).clamp(min=1)
    return torch.where(mask, values, 0).flatten(1).sum(dim=1) / count
