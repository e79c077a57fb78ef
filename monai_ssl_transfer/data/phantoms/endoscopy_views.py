"""Where the camera of a generated endoscopy goes: views that show a lesion, and smooth ways through an organ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from monai_ssl_transfer.data.phantoms.endoscopy_anatomy import Scene
from monai_ssl_transfer.data.phantoms.endoscopy_camera import Camera, look
from monai_ssl_transfer.data.phantoms.endoscopy_picture import lesion_mask
from monai_ssl_transfer.data.phantoms.endoscopy_wall import ROWS
from monai_ssl_transfer.errors import DataError

_VIEWS_OF_A_SCENE = 6
_SCENES = 20


def scene_with_lesion(
    make: Callable[[np.random.Generator], Scene],
    rng: np.random.Generator,
    border: str,
    share: tuple[float, float] = (0.008, 0.4),
) -> Scene:
    """Draw scenes and views until a lesion fills a given share of the picture.

    Args:
        make: draws a scene with a finished wall.
        rng: source of scenes and views.
        border: of the picture, see ``endoscopy_picture.BORDERS``.
        share: smallest and largest part of the picture.

    Returns:
        A scene whose ``view`` shows the lesion.

    Raises:
        DataError: the scenes hardly ever show one.
    """
    for _ in range(_SCENES):
        scene = make(rng)
        for _ in range(_VIEWS_OF_A_SCENE):
            scene.view = _towards_lesion(rng, scene)
            if share[0] <= lesion_mask(scene, scene.view, border, 48).mean() <= share[1]:
                return scene
    raise DataError(f"no view of {_SCENES} generated scenes shows a lesion: ask for a wider share than {share}.")


def way(
    rng: np.random.Generator, scene: Scene, count: int, pace: float, sway: float = 1.0, last: float = np.inf
) -> list[Camera]:
    """A smooth way of the endoscope that begins at the scene's view.

    Args:
        rng: the way.
        scene: with a finished wall.
        count: number of pictures.
        pace: mm forward from picture to picture.
        sway: how much it moves aside and turns; 0 goes straight on.
        last: z in mm that it does not pass.

    Returns:
        One camera per picture.
    """
    wall, first = scene.wall, scene.view
    size = wall.width
    waves = rng.uniform(0, 2 * np.pi, (6, 2))
    speed = rng.uniform(0.12, 0.45, (6, 2))
    height = np.array([0.06 * size, 0.06 * size, 0.0, 0.16, 0.16, 0.12])[:, None] * rng.uniform(0.4, 1, (6, 2)) * sway
    steps = np.arange(count)[:, None, None]
    moves = (height * (np.sin(waves + speed * steps) - np.sin(waves))).sum(2)
    start = first.position - [*_centre(scene, first.position[2]), 0.0]
    cameras = []
    for step, (right, down, _, yaw, pitch, roll) in enumerate(moves):
        z = min(first.position[2] + step * pace, max(last, first.position[2]))
        position = start * [1, 1, 0] + [*_centre(scene, z), z] + np.array([right, down, 0.0])
        forward = first.rotation @ _turn(yaw, pitch)
        cameras.append(_rolled(position, forward, first, roll))
    return cameras


def keep_in_view(scene: Scene, cameras: list[Camera], border: str, least: float = 0.004) -> list[Camera]:
    """Pull cameras back towards the scene's view until each shows its lesion."""
    kept = []
    for camera in cameras:
        for _ in range(6):
            if lesion_mask(scene, camera, border, 48).mean() >= least:
                break
            camera = _between(scene.view, camera)
        else:
            camera = scene.view
        kept.append(camera)
    return kept


def _towards_lesion(rng: np.random.Generator, scene: Scene) -> Camera:
    """Look from somewhere before a lesion to somewhere between it and the lumen."""
    place = _lesion_place(scene)
    size = scene.wall.width
    z = min(place[2] - rng.uniform(7, 26), 20.0)
    z = max(z, scene.wall.start + 3)
    away = rng.normal(0, 0.15 * size, 2).clip(-0.3 * size, 0.3 * size)
    position = np.array([*(_centre(scene, z) + away), z])
    lumen = np.array([*_centre(scene, place[2] + 12), place[2] + 12])
    target = place + rng.uniform(0.0, 0.75) * (lumen - place) + rng.normal(0, 2.0, 3)
    return look(position, target, float(rng.uniform(0, 2 * np.pi)), scene.view.field_of_view)


def _lesion_place(scene: Scene) -> np.ndarray:
    """A point in mm, (3,), of the scene's first lesion."""
    for solid in scene.solids:
        if solid.lesion:
            return solid.centre
    wall = scene.wall
    marked = np.argwhere(wall.lesion > 0.9)
    row, column = marked[len(marked) // 2] if len(marked) else (0, wall.columns // 3)
    turn, radius = 2 * np.pi * row / ROWS, float(wall.radius[row, column])
    across = wall.centre[column] + radius * np.array([np.cos(turn), np.sin(turn)])
    return np.array([*across, wall.z[column]])


def _centre(scene: Scene, z: float) -> np.ndarray:
    wall = scene.wall
    return wall.centre[int(np.clip((z - wall.start) / wall.step, 0, wall.columns - 1))].astype(float)


def _turn(yaw: float, pitch: float) -> np.ndarray:
    return np.array([np.sin(yaw), np.sin(pitch) * np.cos(yaw), np.cos(pitch) * np.cos(yaw)])


def _rolled(position: np.ndarray, forward: np.ndarray, like: Camera, roll: float) -> Camera:
    """A camera that looks ``forward`` and keeps the other's idea of up, turned by ``roll`` radians."""
    forward = forward / np.linalg.norm(forward)
    right = like.rotation[:, 0] - forward * (forward @ like.rotation[:, 0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.stack([c * right + s * down, c * down - s * right, forward], 1)
    return Camera(position, rotation, like.field_of_view)


def _between(a: Camera, b: Camera) -> Camera:
    """Half way from one camera to another."""
    return _rolled((a.position + b.position) / 2, a.rotation[:, 2] + b.rotation[:, 2], a, 0.0)
