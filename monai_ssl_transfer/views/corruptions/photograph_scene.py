"""What is in front of the lens of an endoscope: reflexes on wet mucosa, smoke of electrosurgery, bubbles."""

from __future__ import annotations

import cv2
import numpy as np

from monai_ssl_transfer.views.corruptions.fields import grain_size, lit_part, pixels, resized, smooth_field


def specular_highlights(frame: np.ndarray, random: np.random.Generator, share: float) -> np.ndarray:
    """White, sharply edged reflexes in clusters, where the mucosa faces the light, with a faint glow around them.

    Args:
        frame: (H, W, 3) float32 from 0 to 1.
        random: numbers of this image.
        share: of the view that they cover.
    """
    size = grain_size(frame.shape)
    small, view = resized(frame, size), resized(lit_part(frame), size)
    light = cv2.GaussianBlur(small.max(axis=2), (0, 0), 8)
    inside = view > 0.9
    if not inside.any():
        return frame
    facing = (light - light[inside].mean()) / max(float(light[inside].std()), 1e-3)
    wet = 0.8 * smooth_field(size, 45, random) + 0.9 * np.clip(facing, -2.5, 1.2)
    score = smooth_field(size, 3.2, random) + 0.25 * smooth_field(size, 1.8, random) + wet
    threshold = np.quantile(score[inside], 1 - share)
    sharp = np.clip((score - threshold) / 0.25, 0, 1) * view
    glow = 0.25 * cv2.GaussianBlur(sharp, (0, 0), 5)
    alpha = np.clip(resized(np.maximum(sharp, glow).astype(np.float32), frame.shape[:2]), 0, 1)[..., None]
    return frame + alpha * (np.array([1.0, 0.99, 0.97], np.float32) - frame).clip(0)


def smoke(frame: np.ndarray, random: np.random.Generator, opacity: float) -> np.ndarray:
    """Drifting white-grey haze, lit by the endoscope: thicker in clouds, brighter where the light is.

    Args:
        frame: (H, W, 3) float32 from 0 to 1.
        random: numbers of this image.
        opacity: mean over the view.
    """
    size = grain_size(frame.shape)
    cloud = sum(
        weight * smooth_field(size, sigma, random) for sigma, weight in ((110, 1.0), (50, 0.5), (24, 0.22), (11, 0.1))
    )
    thick = opacity * np.exp(0.38 * np.asarray(cloud, np.float32) - 0.07)
    alpha = resized(np.clip(thick, 0, 0.96).astype(np.float32), frame.shape[:2])[..., None]
    light = resized(cv2.GaussianBlur(resized(frame, size).max(axis=2), (0, 0), 60), frame.shape[:2])[..., None]
    haze = np.array([0.80, 0.82, 0.84], np.float32) * (0.45 + 0.55 * np.clip(light / 0.7, 0, 1.15))
    return frame * (1 - alpha) + haze * alpha


def bubbles(frame: np.ndarray, random: np.random.Generator, count: float) -> np.ndarray:
    """Bubbles of rinsing water in clusters: small lenses with a bright rim and a reflex towards the light.

    Args:
        frame: (H, W, 3) float32 from 0 to 1.
        random: numbers of this image; more bubbles are added to the same ones.
        count: bubbles.
    """
    rows, columns = frame.shape[:2]
    inside = np.argwhere(cv2.erode(lit_part(frame), np.ones((3, 3), np.uint8)) > 0.9)
    if not len(inside):
        return frame
    centres = inside[random.integers(len(inside), size=4)]
    draws = random.random((400, 1)), random.integers(4, size=400), random.standard_normal((400, 3))
    foam = frame.copy()
    for lonely, cluster, normal in zip(*(draw[: int(count)] for draw in draws), strict=True):
        spread = pixels(140 if lonely[0] < 0.2 else 24, frame.shape)
        row, column = centres[cluster] + normal[:2] * spread
        if 0 <= row < rows and 0 <= column < columns:
            _blow(foam, frame, row, column, pixels(float(np.clip(6.5 * np.exp(0.5 * normal[2]), 2.5, 22)), frame.shape))
    return foam


def _blow(foam: np.ndarray, frame: np.ndarray, row: float, column: float, radius: float) -> None:
    """Draw one bubble in place: film, rim, shadow below, reflex of the lamp and its image on the far side."""
    reach = radius + 2
    top, left = max(0, int(row - reach)), max(0, int(column - reach))
    bottom, right = min(foam.shape[0], int(row + reach) + 2), min(foam.shape[1], int(column + reach) + 2)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    dy, dx = (y - row) / radius, (x - column) / radius
    distance = np.hypot(dy, dx)
    cover = np.clip((1 - distance) * radius + 0.5, 0, 1)[..., None]
    bend = 1 + 0.9 * np.clip(distance, 0, 1) ** 2  # a thin film: the view behind is bent at the rim only
    behind = cv2.remap(
        frame,
        (column + dx * radius / bend).astype(np.float32),
        (row + dy * radius / bend).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    light = frame[top:bottom, left:right].max()
    towards = np.array([foam.shape[0] / 2 - row, foam.shape[1] / 2 - column])
    towards = towards / max(float(np.hypot(*towards)), 1.0)
    side = dy * towards[0] + dx * towards[1]
    rim = np.exp(-(((distance - 0.93) / 0.07) ** 2)) * (0.2 + 0.18 * side)
    shade = -0.22 * np.exp(-(((distance - 0.78) / 0.12) ** 2)) * (0.6 - 0.4 * side)
    lamp = np.exp(-((np.hypot(dy - 0.5 * towards[0], dx - 0.5 * towards[1]) / 0.16) ** 4))
    echo = 0.35 * np.exp(-((np.hypot(dy + 0.62 * towards[0], dx + 0.62 * towards[1]) / 0.17) ** 2))
    seen = behind * 0.97 + (light * (rim + shade + echo))[..., None]
    seen = seen + lamp[..., None] * (1 - seen)
    patch = foam[top:bottom, left:right]
    patch += cover * (seen - patch)
