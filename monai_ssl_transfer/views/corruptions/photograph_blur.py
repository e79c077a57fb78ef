"""Blur of photographs. What is dark outside of the endoscope's view is not drawn into it."""

from __future__ import annotations

import cv2
import numpy as np

from monai_ssl_transfer.views.corruptions.fields import lit_part, pixels

_FINER = 5


def gaussian_blur(frame: np.ndarray, random: np.random.Generator, sigma: float) -> np.ndarray:
    """Soft focus or a dirty lens.

    Args:
        frame: (H, W, 3) float32 from 0 to 1.
        random: not used.
        sigma: SD in px at 512.
    """
    width = pixels(sigma, frame.shape)
    side = 2 * int(np.ceil(3 * width)) + 1
    line = cv2.getGaussianKernel(side, width, cv2.CV_32F)
    return _within_view(frame, line @ line.T)


def defocus_blur(frame: np.ndarray, random: np.random.Generator, radius: float) -> np.ndarray:
    """Out of focus: every point becomes a disc of `radius` px at 512."""
    wanted = pixels(radius, frame.shape)
    half = int(np.ceil(wanted))
    axis = (np.arange((2 * half + 1) * _FINER) + 0.5) / _FINER - half - 0.5
    disc = (np.hypot(axis[:, None], axis) <= wanted).astype(np.float32)
    kernel = disc.reshape(2 * half + 1, _FINER, 2 * half + 1, _FINER).mean(axis=(1, 3))
    return _within_view(frame, kernel)


def motion_blur(frame: np.ndarray, random: np.random.Generator, length: float) -> np.ndarray:
    """The tip moves while the shutter is open: every point becomes a line of `length` px at 512, of a drawn angle."""
    angle = random.uniform(0, np.pi)
    half = pixels(length, frame.shape) / 2
    size = int(np.ceil(half)) + 1
    along = np.linspace(-half, half, max(3, int(8 * half)))
    kernel = np.zeros((2 * size + 1, 2 * size + 1), np.float32)
    rows, columns = size + along * np.sin(angle), size + along * np.cos(angle)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    for row, column, share in (
        (top, left, (1 - down) * (1 - right)),
        (top + 1, left, down * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left + 1, down * right),
    ):
        np.add.at(kernel, (row, column), share)
    return _within_view(frame, kernel)


def _within_view(frame: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Average over the pixels of the view only."""
    kernel = kernel / kernel.sum()
    view = lit_part(frame)
    weight = cv2.filter2D(view, -1, kernel, borderType=cv2.BORDER_REFLECT)
    blurred = cv2.filter2D(frame * view[..., None], -1, kernel, borderType=cv2.BORDER_REFLECT)
    return blurred / np.maximum(weight, 1e-3)[..., None]
