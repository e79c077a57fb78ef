"""Values of RGB frames as networks want them: the mean and standard deviation of ImageNet."""

from __future__ import annotations

import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise_frames(frames: torch.Tensor) -> torch.Tensor:
    """Bring RGB values to the range that ImageNet encoders were trained on.

    Args:
        frames: (..., 3, H, W) uint8, or floating point in the same range 0..255 (after an interpolation).

    Returns:
        (..., 3, H, W) float32, (x / 255 - mean) / std per channel.
    """
    scale = torch.tensor(IMAGENET_STD, device=frames.device).view(3, 1, 1).mul_(255)
    shift = torch.tensor(IMAGENET_MEAN, device=frames.device).view(3, 1, 1).mul_(255)
    return frames.to(torch.float32).sub(shift).div_(scale)
