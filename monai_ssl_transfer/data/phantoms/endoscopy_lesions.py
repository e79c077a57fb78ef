"""What can be wrong with generated mucosa, or lie on it: polyps, angiodysplasia, ulcers, bleeding, stool, dye."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from monai_ssl_transfer.data.phantoms.endoscopy_anatomy import Patient, Scene
from monai_ssl_transfer.data.phantoms.endoscopy_noise import noise, spider
from monai_ssl_transfer.data.phantoms.endoscopy_solids import Solid
from monai_ssl_transfer.data.phantoms.endoscopy_wall import ROWS, Wall

BLOOD = (0.42, 0.03, 0.025)
FIBRIN = (0.78, 0.66, 0.42)
STOOL = (0.42, 0.24, 0.06)
DYE = (0.10, 0.24, 0.42)
SHAPES = ("sessile", "pedunculated", "flat")


def polyp(rng: np.random.Generator, scene: Scene, angle: float, z: float, shape: str | None = None) -> Solid:
    """A polyp on the wall; its colour is that of the mucosa but for a change that varies around none.

    Args:
        rng: size, form and surface.
        scene: where it grows.
        angle: of its foot in radians.
        z: of its foot in mm.
        shape: one of ``SHAPES``; None draws one.
    """
    shape = shape or str(rng.choice(SHAPES, p=(0.55, 0.2, 0.25)))
    size = float(np.clip(rng.lognormal(np.log(5.0), 0.4), 2.0, 11.0))
    flat = {"sessile": rng.uniform(0.6, 0.95), "pedunculated": rng.uniform(0.8, 1.05), "flat": rng.uniform(0.22, 0.34)}
    radii = size * np.array([rng.uniform(0.75, 1.15), rng.uniform(0.75, 1.25), flat[shape]])
    foot, axes = _foot(scene.wall, angle, z)
    lift = {"sessile": 0.35, "flat": 0.1, "pedunculated": 1.3 + rng.uniform(0.2, 1.0)}[shape] * radii[2]
    lean = rng.normal(0, 0.5 * size, 2) if shape == "pedunculated" else np.zeros(2)
    centre = foot + axes[2] * lift + axes[0] * lean[0] + axes[1] * lean[1]
    return Solid(
        centre,
        axes,
        radii,
        _polyp_colour(rng, scene.patient),
        root=foot - axes[2] if shape == "pedunculated" else None,
        stalk=0.35 * size if shape == "pedunculated" else 0.0,
        lumps=float(rng.uniform(0.02, 0.14)),
        waves=rng.normal(0, 3.0, (4, 3)),
        phases=rng.uniform(0, 2 * np.pi, 4),
        blend=float(rng.uniform(0.15, 0.45) * size),
        pattern=int(rng.choice(4, p=(0.15, 0.3, 0.35, 0.2))),
        relief=float(rng.uniform(0.05, 0.38)),
        texture_seed=int(rng.integers(1 << 30)),
    )


def add_polyp(rng: np.random.Generator, scene: Scene, nearest: float = 9.0, farthest: float = 34.0) -> None:
    """Put a polyp at a place that the camera can look at."""
    z = float(rng.uniform(nearest, farthest))
    scene.solids.append(polyp(rng, scene, float(rng.uniform(0, 2 * np.pi)), z))


def stool_ball(rng: np.random.Generator, scene: Scene) -> Solid:
    """A lump of stool, which is no lesion however round it is."""
    like = polyp(rng, scene, float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(10, 40)), "sessile")
    tone = rng.uniform(0.7, 1.3)
    colour = tuple(float(value * tone) for value in STOOL)
    return replace(like, albedo=colour, lesion=False, pattern=0, lumps=0.25, blend=0.4)  # type: ignore[arg-type]


def angiodysplasia(rng: np.random.Generator, scene: Scene, angle: float, z: float, size: float) -> None:
    """A red patch of dilated, tortuous vessels with fine branches around it, marked as lesion.

    Args:
        rng: its form.
        scene: where; its wall is not finished yet.
        angle: of its middle in radians.
        z: of its middle in mm.
        size: radius in mm.
    """
    wall = scene.wall
    scale = ROWS / (2 * np.pi * _radius_at(wall, z))
    pattern = spider(rng, size * scale)
    blush = _blob(wall, rng, angle, z, 0.75 * size, ragged=0.5)
    arms = _stamp(wall, pattern, angle, z)
    core = _blob(wall, rng, angle, z, 0.4 * size, ragged=0.7)
    wall.filter((0.88, 0.45, 0.45), blush * np.float32(rng.uniform(0.4, 1.0)))
    wall.filter((0.8, 0.16, 0.16), np.clip(arms + 0.7 * core, 0, 1) * np.float32(rng.uniform(0.55, 1.0)))
    covered = cv2.GaussianBlur(arms, (0, 0), 0.12 * size * scale) * 2.2
    wall.lesion = np.maximum(wall.lesion, np.clip(np.maximum(np.maximum(blush, core), covered), 0, 1))


def erythema(rng: np.random.Generator, scene: Scene, count: int, strength: float) -> None:
    """Red spots without dilated vessels, as of inflammation or of the instrument; no lesion in the mask."""
    for _ in range(count):
        place = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(6, 45))
        spot = _blob(scene.wall, rng, *place, float(rng.uniform(1.0, 4.5)), ragged=0.6)
        scene.wall.filter((0.9, 0.5, 0.5), spot * np.float32(strength * rng.uniform(0.5, 1.2)))


def colitis(rng: np.random.Generator, scene: Scene, grade: float) -> None:
    """Ulcerative colitis of a Mayo grade between 0 (none) and 3 (spontaneous bleeding and ulcers).

    Redness and granular relief grow with the grade; erosions begin between 1 and 2, bleeding between 2 and 3.
    """
    wall = scene.wall
    patchy = np.clip(0.75 + 0.35 * noise(rng, 100, wall.columns), 0, 1.5)
    wall.filter((0.97, 0.66, 0.68), np.float32(0.32 * grade) * patchy)
    granules = noise(rng, 8, wall.columns) + 0.8 * noise(rng, 5, wall.columns)
    wall.raise_surface(np.float32(0.035 * grade) * granules * patchy)
    wall.filter((0.9, 0.45, 0.45), np.float32(0.16 * grade) * np.clip(granules - 0.3, 0, 2))
    for _ in range(rng.poisson(3.2 * max(grade - 1.1, 0) ** 1.3)):
        _ulcer(rng, wall, float(rng.uniform(0.8, 1.0 + 1.3 * grade)))
    for _ in range(rng.poisson(2.5 * max(grade - 1.9, 0))):
        place = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(3, 50))
        wall.tint(BLOOD, 0.85 * _blob(wall, rng, *place, float(rng.uniform(1, 3.5)), ragged=0.9))


def squamous_border(
    rng: np.random.Generator, scene: Scene, end: float, tongues: tuple[float, ...] = (), raised: float = 0.0
) -> np.ndarray:
    """The Z-line: salmon mucosa below a jagged border, with tongues of it further up in Barrett's oesophagus.

    Args:
        rng: its course.
        scene: an oesophagus.
        end: z of the cardia in mm.
        tongues: length of each tongue in mm.
        raised: mm by which the whole border lies higher.

    Returns:
        z of the border at every angle, float32 (ROWS,).
    """
    wall = scene.wall
    jag = 1.0 * noise(rng, 50, 1)[:, 0] + 0.7 * noise(rng, 26, 1)[:, 0] + 0.4 * noise(rng, 14, 1)[:, 0]
    border = np.float32(end - rng.uniform(13, 18) - raised) + jag
    for length in tongues:
        turn = np.angle(np.exp(1j * (wall.angle[:, 0] - rng.uniform(0, 2 * np.pi))))
        border -= length * np.exp(-(np.abs(turn / rng.uniform(0.28, 0.6)) ** 2.5))
    border = border.astype(np.float32)
    fine = 0.5 * noise(rng, 14, wall.columns) + 0.25 * noise(rng, 5, wall.columns)
    below = np.clip((wall.z[None] - border[:, None] + fine) / 0.8 + 0.5, 0, 1)
    wall.tint((0.66, 0.2, 0.13), 0.85 * below)
    wall.raise_surface(0.05 * below * noise(rng, 8, wall.columns))
    return border


def mucosal_breaks(rng: np.random.Generator, scene: Scene, border: np.ndarray, lengths: tuple[float, ...]) -> None:
    """Oesophagitis: red streaks of given lengths in mm that rise from the Z-line, the longer ones with fibrin."""
    wall = scene.wall
    for length in lengths:
        row = int(rng.integers(ROWS))
        top, width = float(border[row]) - length, float(rng.uniform(0.8, 1.4) + 0.06 * length)
        around, along = wall.distance(2 * np.pi * row / ROWS, top)
        wobble = 0.5 * noise(rng, 26, wall.columns) + 0.3 * noise(rng, 8, wall.columns)
        inside = np.clip(along / 2, 0, 1) * np.clip((length + 1 - along) / 1.5, 0, 1)
        weight = inside * np.clip(1.5 - np.abs(around + wobble) / width, 0, 1)
        wall.tint((0.5, 0.05, 0.04), 0.92 * weight)
        if length > 6:
            core = inside * np.clip(1.1 - np.abs(around + wobble) / (0.5 * width), 0, 1)
            wall.tint(FIBRIN, 0.7 * core)


def cushions(rng: np.random.Generator, scene: Scene, z: float) -> None:
    """Haemorrhoids: bluish red cushions around the anal canal."""
    wall = scene.wall
    turn = rng.uniform(0, 2 * np.pi)
    for place in turn + np.array([0, 2.1, 4.2])[: int(rng.integers(2, 4))] + rng.normal(0, 0.25):
        around, along = wall.distance(float(place % (2 * np.pi)), z + float(rng.normal(0, 1)))
        bulge = np.exp(-((around / rng.uniform(5, 8)) ** 2) - (along / rng.uniform(4, 7)) ** 2)
        wall.raise_surface((rng.uniform(5, 9) * bulge).astype(np.float32))
        wall.filter((0.8, 0.35, 0.62), np.clip(1.4 * bulge, 0, 1).astype(np.float32))


def residue(rng: np.random.Generator, scene: Scene, amount: float) -> None:
    """Stool and bile on the wall: from some yellow mucus (0.1) to a gut that was not prepared (2)."""
    wall = scene.wall
    tone = rng.uniform(0, 1)
    colour = tuple(float(a + tone * (b - a)) for a, b in zip(STOOL, (0.55, 0.36, 0.10), strict=True))
    for _ in range(rng.poisson(5 * amount) + (amount >= 0.5)):
        size = float(rng.uniform(1.5, 4 + 7 * amount))
        place = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(2, 60))
        weight = _blob(wall, rng, *place, size, ragged=0.9)
        wall.tint(colour, np.float32(rng.uniform(0.6, 0.95)) * weight)  # type: ignore[arg-type]
        wall.raise_surface(weight * np.clip(0.5 * amount + 0.3 * noise(rng, 14, wall.columns), 0, 3))


def dyed_cushion(rng: np.random.Generator, scene: Scene, resected: bool) -> None:
    """A polyp lifted by an injection of blue dye, or the wound that is left when it has been cut off."""
    wall = scene.wall
    angle, z, size = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(13, 24)), float(rng.uniform(7, 11))
    mound = _blob(wall, rng, angle, z, size, ragged=0.15)
    wall.raise_surface(0.45 * size * mound**0.7)
    wall.lesion = np.maximum(wall.lesion, mound)
    wall.filter((0.35, 0.72, 1.0), np.clip(mound * np.float32(rng.uniform(0.7, 1.3)), 0, 1))
    if resected:
        wound = _blob(wall, rng, angle, z, 0.55 * size, ragged=0.3)
        wall.raise_surface(-0.3 * size * wound)
        rim = np.clip(1 - np.abs(wound - 0.3) / 0.25, 0, 1)
        wall.tint((0.6, 0.5, 0.45), 0.6 * wound)
        wall.tint(DYE, 0.6 * wound * (noise(rng, 26, wall.columns) > 0.2))
        wall.filter((0.75, 0.25, 0.25), 0.8 * rim)
    else:
        body = polyp(rng, scene, angle, z, "sessile")
        scene.solids.append(replace(body, centre=body.centre + body.axes[2] * 0.3 * size))


def _ulcer(rng: np.random.Generator, wall: Wall, size: float) -> None:
    """A yellowish white ulcer with a red rim."""
    angle, z = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(3, 50))
    spot = _blob(wall, rng, angle, z, 1.5 * size, ragged=0.7)
    wall.filter((0.85, 0.3, 0.3), np.clip(1.3 * spot, 0, 1))
    wall.tint(FIBRIN, 0.85 * np.clip((spot - 0.45) / 0.2, 0, 1))
    wall.raise_surface(-0.3 * np.clip(spot - 0.4, 0, 1))


def _foot(wall: Wall, angle: float, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Point of the wall in mm, (3,), and its frame as rows: around, along, and away from the wall."""
    column = int(np.clip((z - wall.start) / wall.step, 0, wall.columns - 1))
    radius = float(wall.radius[round(angle / (2 * np.pi) * ROWS) % ROWS, column])
    outwards = np.array([np.cos(angle), np.sin(angle), 0.0])
    foot = np.array([*wall.centre[column], z]) + radius * outwards
    around = np.array([-np.sin(angle), np.cos(angle), 0.0])
    return foot, np.stack([around, np.array([0.0, 0.0, 1.0]), -outwards])


def _polyp_colour(rng: np.random.Generator, patient: Patient) -> tuple[float, float, float]:
    """The mucosa's colour, redder or paler by less than mucosa differs from patient to patient."""
    red, pale = rng.normal(0.04, 0.11), rng.normal(0.02, 0.07)
    r, g, b = patient.mucosa
    return (
        float(np.clip(r * np.exp(0.4 * pale), 0.1, 0.95)),
        float(np.clip(g * np.exp(pale - red), 0.05, 0.8)),
        float(np.clip(b * np.exp(1.1 * pale - red), 0.03, 0.7)),
    )


def _radius_at(wall: Wall, z: float) -> float:
    column = int(np.clip((z - wall.start) / wall.step, 0, wall.columns - 1))
    return max(float(np.median(wall.radius[:, column])), 2.0)


def _blob(wall: Wall, rng: np.random.Generator, angle: float, z: float, size: float, ragged: float) -> np.ndarray:
    """A patch with an uneven edge, 1 in its middle and 0 outside, float32 (ROWS, columns)."""
    around, along = wall.distance(angle, z)
    shape = rng.uniform(0.7, 1.4)
    away = np.hypot(around * np.float32(shape), along / np.float32(shape)) / np.float32(size)
    uneven = np.float32(0.3 * ragged) * (noise(rng, 26, wall.columns) + noise(rng, 14, wall.columns))
    return np.clip((1 - away + uneven * np.clip(1.6 - away, 0, 1)) / np.float32(0.45), 0, 1)


def _stamp(wall: Wall, pattern: np.ndarray, angle: float, z: float) -> np.ndarray:
    """Put a small picture on the wall around a point, across the seam if need be; float32 (ROWS, columns)."""
    canvas = np.zeros((ROWS, wall.columns), np.float32)
    half = len(pattern) // 2
    rows = (np.arange(len(pattern)) - half + round(angle / (2 * np.pi) * ROWS)) % ROWS
    columns = np.arange(len(pattern)) - half + round((z - wall.start) / wall.step)
    inside = (columns >= 0) & (columns < wall.columns)
    canvas[np.ix_(rows, columns[inside])] = pattern[:, inside]
    return canvas
