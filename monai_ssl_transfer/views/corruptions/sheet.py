"""A contact sheet of corruptions: one row each, clean beside severities 1, 3 and 5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from monai_ssl_transfer.data.endoscopy.frames import read_frame
from monai_ssl_transfer.data.phantoms.ct_scan import PhantomOptions, make_ct_phantom
from monai_ssl_transfer.data.phantoms.endoscopy_findings import find_scene
from monai_ssl_transfer.data.phantoms.endoscopy_picture import draw_processor, photograph
from monai_ssl_transfer.data.phantoms.endoscopy_views import scene_with_lesion
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.views.corruptions.apply import corrupt_ct, corrupt_mr, corrupt_photograph
from monai_ssl_transfer.views.corruptions.severities import CORRUPTIONS, MR, PHOTOGRAPH

_SHOWN = (1, 3, 5)
_WINDOW = (-160.0, 240.0)
_MR_OF_HU = ((-1000, -600, -120, -60, 20, 120, 300, 1500), (2, 10, 900, 850, 420, 650, 120, 40))
"""Brightness of a generated MR from the HU of a generated CT: bright fat, dark bone, dark air."""
_SIDE = 300
_TITLE = 26
_BORDER = "octagon"


def write_sheet(domain: str, out: Path, sources: Sequence[Path] = (), names: Sequence[str] = ()) -> Path:
    """Write a contact sheet of one domain.

    Args:
        domain: "photograph", "ct" or "mr".
        out: the picture to write, PNG or JPEG.
        sources: photographs, or NIfTI volumes of CT or MR; a generated one where none is given. They are shown in turn.
        names: corruptions; all of the domain by default.

    Raises:
        DataError: unknown domain or corruption, or a file that cannot be read or written.
    """
    if domain not in CORRUPTIONS:
        raise DataError(f"there are no corruptions of '{domain}': choose one of {', '.join(CORRUPTIONS)}.")
    scenes = _photographs(sources) if domain == PHOTOGRAPH else _scans(sources, domain)
    rows = []
    for number, name in enumerate(names or CORRUPTIONS[domain]):
        identity, image, spacing = scenes[number % len(scenes)]
        if domain == PHOTOGRAPH:
            tiles = [corrupt_photograph(image, name, severity, identity) for severity in (0, *_SHOWN)]
        else:
            corrupt, window = (corrupt_mr, _range_of(image)) if domain == MR else (corrupt_ct, _WINDOW)
            tiles = [_shown(corrupt(image, name, severity, identity, spacing), window) for severity in (0, *_SHOWN)]
        rows.append(_titled(name, np.concatenate([_tile(one) for one in tiles], axis=1)))
    height = max(row.shape[0] for row in rows)
    half = -(-len(rows) // 2)
    rows = [np.pad(row, ((0, height - row.shape[0]), (0, 0), (0, 0)), constant_values=255) for row in rows]
    rows += [np.full_like(rows[0], 255)] * (2 * half - len(rows))
    pages = [np.concatenate(rows[:half]), np.concatenate(rows[half:])]
    sheet = np.concatenate([pages[0], np.full((len(pages[0]), 24, 3), 255, np.uint8), pages[1]], axis=1)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        Image.fromarray(sheet).save(out, quality=85)
    except (OSError, ValueError) as error:
        raise DataError(f"{out} could not be written ({error}): give a .png or .jpg in a folder of yours.") from error
    return out


def _photographs(sources: Sequence[Path]) -> list[tuple[str, np.ndarray, None]]:
    if sources:
        return [(file.name, read_frame(file), None) for file in sources]
    return [(f"phantom {seed}", generated_photograph(seed, 480), None) for seed in (3, 5)]


def generated_photograph(seed: int, rows: int) -> np.ndarray:
    """A generated photograph of a polyp within a black border, (rows, 5/4 rows, 3) uint8."""
    rng = np.random.Generator(np.random.Philox(seed))
    scene = scene_with_lesion(lambda r: find_scene("polyps", r), rng, _BORDER, (0.02, 0.3))
    return photograph(scene, scene.view, draw_processor(rng, _BORDER), rng, rows, rows * 5 // 4, shake=0.0).image


def _scans(sources: Sequence[Path], domain: str) -> list[tuple[str, np.ndarray, tuple[float, float, float]]]:
    """Five slices around the middle, (Z, R, C), rows to posterior."""
    if sources:
        return [_nifti(file) for file in sources]
    found = []
    for seed, region in ((4, "abdomen"), (7, "abdomen")):
        one = make_ct_phantom(seed, PhantomOptions(size=384, slices=7, region=region, noise=(6.0, 9.0)))
        values = np.interp(one.hu, *_MR_OF_HU).astype(np.float32) if domain == MR else one.hu
        found.append((f"phantom {seed}", values, (one.slice_spacing, *one.spacing)))
    return found


def _nifti(file: Path) -> tuple[str, np.ndarray, tuple[float, float, float]]:
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation

    volume = Compose([LoadImage(), EnsureChannelFirst(), Orientation(axcodes="PLS", labels=None)])(str(file))
    rows, columns, between = (float(one) for one in volume.pixdim)
    slices = volume.numpy()[0].transpose(2, 0, 1)
    middle = len(slices) // 2
    return file.name, slices[max(0, middle - 3) : middle + 4], (between, rows, columns)


def _range_of(volume: np.ndarray) -> tuple[float, float]:
    return 0.0, float(np.percentile(volume[volume != 0], 99.5)) if volume.any() else 1.0


def _shown(volume: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    low, high = window
    grey = np.clip((volume[len(volume) // 2].astype(np.float32) - low) / (high - low), 0, 1)
    return np.repeat(np.rint(grey * 255).astype(np.uint8)[..., None], 3, axis=2)


def _tile(picture: np.ndarray) -> np.ndarray:
    scale = _SIDE / max(picture.shape[:2])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.pad(small, ((2, 2), (2, 2), (0, 0)), constant_values=255)


def _titled(name: str, strip: np.ndarray) -> np.ndarray:
    bar = np.full((_TITLE, strip.shape[1], 3), 255, np.uint8)
    for place, text in enumerate((name.replace("_", " "), *(f"severity {one}" for one in _SHOWN))):
        where = (6 + place * (strip.shape[1] // 4), _TITLE - 8)
        cv2.putText(bar, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([bar, strip])
