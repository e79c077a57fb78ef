"""Values of RGB frames as networks want them: the mean and standard deviation of ImageNet."""

from __future__ import annotations

import torch

from monai_ssl_transfer.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise_frames(frames: torch.Tensor, channels: int = 3) -> torch.Tensor:
    """Bring RGB values to the range that ImageNet encoders were trained on.

    Args:
        frames: (..., 3, H, W) uint8, or floating point in the same range 0..255 (after an interpolation).
        channels: 3; or 1 for a network of one channel: the mean of the three, which on grey pictures is, but for the
            small differences between ImageNet's channels, what an RGB stem of summed weights expects.

    Returns:
        (..., channels, H, W) float32, (x / 255 - mean) / std per channel.

    Raises:
        DataError: another number of channels.
    """
    if channels not in (1, 3):
        raise DataError(f"photographs make 1 or 3 channels, not {channels}: set in_channels to one of them.")
    scale = torch.tensor(IMAGENET_STD, device=frames.device).view(3, 1, 1).mul_(255)
    shift = torch.tensor(IMAGENET_MEAN, device=frames.device).view(3, 1, 1).mul_(255)
    normalised = frames.to(torch.float32).sub(shift).div_(scale)
    return normalised if channels == 3 else normalised.mean(dim=-3, keepdim=True)
