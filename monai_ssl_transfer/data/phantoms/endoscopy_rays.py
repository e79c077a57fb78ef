"""Follows the camera's rays to the wall and the bodies in front of it: what is hit, how far away, with which normal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from monai_ssl_transfer.data.phantoms.endoscopy_camera import Camera
from monai_ssl_transfer.data.phantoms.endoscopy_solids import Solid, smooth_minimum
from monai_ssl_transfer.data.phantoms.endoscopy_wall import ERODED_MM, Wall

FARTHEST = 160.0  # mm
_STEPS = 70
_NEAREST = 1.5  # mm in front of the lens nothing is seen


class Hits(NamedTuple):
    """What the rays of a picture meet.

    Args:
        away: mm from the camera along the ray, float32 (N,).
        point: float32 (3, N) in mm.
        angle: of the wall's map, radians, float32 (N,).
        normal: unit vectors towards the lumen, float32 (3, N).
        film: slope of the mucus film, float32 (N, 2).
        solid: number of the body that is hit, -1 for the wall, int8 (N,).
    """

    away: np.ndarray
    point: np.ndarray
    angle: np.ndarray
    normal: np.ndarray
    film: np.ndarray
    solid: np.ndarray


def follow(
    wall: Wall, solids: Sequence[Solid], camera: Camera, rows: int, columns: int, seen: np.ndarray
) -> tuple[Hits, np.ndarray]:
    """Follow the rays of a picture's pixels.

    Args:
        wall: finished wall.
        solids: bodies in it.
        camera: where from.
        rows: of the picture.
        columns: of the picture.
        seen: which pixels the border leaves free, bool (rows, columns); N of them.

    Returns:
        the hits and the cosine of every ray with the viewing direction, float32 (N,).
    """
    rays, forward = camera.rays(rows, columns)
    chosen = np.flatnonzero(seen)
    rays, forward = np.ascontiguousarray(rays[:, chosen]), forward[chosen]
    origin = camera.position.astype(np.float32)
    away = _to_wall(wall, origin, rays, _first_guess(wall, camera, rows, columns)[chosen])
    owner = np.full(len(chosen), -1, np.int8)
    crossed = []
    for number, solid in enumerate(solids):
        index, found, inside = _to_solid(wall, solid, origin, rays, away)
        crossed.append(index)
        nearer = found < away[index]
        away[index[nearer]] = found[nearer]
        owner[index[nearer]] = np.where(inside[nearer], number, -1)
    point = origin[:, None] + rays * away
    x, y = wall.offset(point[0], point[1], point[2])
    distance, angle = _polar(x, y)
    slope = wall.look_up("slope", angle, point[2])
    normal = _wall_normal(wall, x, y, distance, point[2], slope)
    for number, solid in enumerate(solids):
        _bend(solid, number, crossed[number], owner, point, distance, wall, angle, normal)
    film = (
        slope[:, 2:] * np.minimum(distance / np.float32(0.8 * wall.width), 1)[:, None] ** 2
    )  # the map is stretched around a pole
    return Hits(away, point, angle, normal, film, owner), forward


def _first_guess(wall: Wall, camera: Camera, rows: int, columns: int) -> np.ndarray:
    """A distance for every pixel that lies safely before the surface, from a quarter of the pixels."""
    small = (-(-rows // 4), -(-columns // 4))
    rays, _ = camera.rays(*small)
    start = np.full(rays.shape[1], _NEAREST, np.float32)
    away = _to_wall(wall, camera.position.astype(np.float32), rays, start).reshape(small)
    near = cv2.erode(away, np.ones((3, 3), np.uint8)) * np.float32(0.96)
    return np.maximum(cv2.resize(near, (columns, rows), interpolation=cv2.INTER_NEAREST).ravel(), _NEAREST)


def _polar(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distance, angle = cv2.cartToPolar(x, y)
    return distance.ravel(), angle.ravel()


def _to_wall(wall: Wall, origin: np.ndarray, rays: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Distance of the wall along every ray: steps that cannot leave the lumen, then a linear interpolation."""
    away, active = start.copy(), np.arange(rays.shape[1])
    gap_before = np.full(len(active), np.nan, np.float32)
    t_before, t, ray = start.copy(), start.copy(), rays
    for _ in range(_STEPS):
        point = origin[:, None] + ray * t
        x, y = wall.offset(point[0], point[1], point[2])
        distance, angle = _polar(x, y)
        radius = wall.look_up("march", angle, point[2])
        gap = radius[:, 0] - distance
        met = gap < np.float32(0.03) + np.float32(0.003) * t
        _cross(away, active, np.flatnonzero(met), gap, gap_before, t, t_before)
        going = ~met & (t < FARTHEST)
        away[active[~met & ~going]] = FARTHEST
        if not going.any():
            return away
        safe = np.minimum(radius[:, 1] - distance, np.float32(ERODED_MM))
        careful = np.minimum(np.float32(0.8) * gap, np.float32(0.45) + np.float32(0.02) * t)
        step = np.maximum(np.maximum(safe, careful), np.float32(0.02) + np.float32(0.002) * t)
        active, ray = active[going], np.ascontiguousarray(ray[:, going])
        gap_before, t_before = gap[going], t[going]
        t = t_before + step[going]
    away[active] = t
    return away


def _cross(
    away: np.ndarray,
    active: np.ndarray,
    met: np.ndarray,
    gap: np.ndarray,
    gap_before: np.ndarray,
    t: np.ndarray,
    t_before: np.ndarray,
) -> None:
    """Write where the rays numbered ``met`` crossed the surface: between their last two steps, linearly."""
    before, now = gap_before[met], gap[met]
    crossing = t_before[met] + before / np.maximum(before - now, np.float32(1e-4)) * (t[met] - t_before[met])
    away[active[met]] = np.where(np.isnan(before), t[met], crossing)


def _to_solid(
    wall: Wall, solid: Solid, origin: np.ndarray, rays: np.ndarray, away: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow the rays through the bounding sphere of a body.

    Returns:
        numbers of the rays, distances at which they meet the united surface, and whether that is the body's own.
    """
    middle, reach = solid.bound()
    to_middle = (middle - origin).astype(np.float32)
    along = to_middle @ rays
    half = np.float32(reach**2) - (np.float32(to_middle @ to_middle) - along**2)
    enter = along - np.sqrt(np.maximum(half, 0))
    index = np.flatnonzero((half > 0) & (enter < away) & (along + reach > 0))
    leave = 2 * along[index] - enter[index]
    t = np.maximum(enter[index], np.float32(_NEAREST))
    found, inside = np.full(len(index), np.inf, np.float32), np.zeros(len(index), bool)
    active, ray = np.arange(len(index)), np.ascontiguousarray(rays[:, index])
    for _ in range(48 if len(index) else 0):
        point = origin[:, None] + ray * t
        x, y = wall.offset(point[0], point[1], point[2])
        distance, angle = _polar(x, y)
        gap = wall.look_up("march", angle, point[2])[:, 0] - distance
        body = solid.distance(point)
        united = smooth_minimum(gap, body, np.float32(solid.blend))
        met = united < 0.03
        found[active[met]], inside[active[met]] = t[met], body[met] < gap[met]
        going = ~met & (t < leave[active])
        if not going.any():
            break
        active, ray = active[going], np.ascontiguousarray(ray[:, going])
        step = np.maximum(np.minimum(0.7 * united[going], np.float32(0.3 + 0.06 * reach)), np.float32(0.03))
        t = t[going] + step
    return index, found, inside


def _wall_normal(
    wall: Wall, x: np.ndarray, y: np.ndarray, distance: np.ndarray, z: np.ndarray, slope: np.ndarray
) -> np.ndarray:
    """Inward normals of the surface distance = radius(angle, z) around a bent centre line, float32 (3, N)."""
    inverse = 1 / np.maximum(distance, np.float32(0.3))
    cosine, sine = x * inverse, y * inverse
    around, along, lean = slope[:, 0] / np.maximum(distance, np.float32(0.3 * wall.width)), slope[:, 1], wall.lean(z)
    normal = np.stack(
        [
            -cosine - around * sine,
            around * cosine - sine,
            along + cosine * lean[0] + sine * lean[1],
        ]
    )
    return _unit(normal)


def _bend(
    solid: Solid,
    number: int,
    crossed: np.ndarray,
    owner: np.ndarray,
    point: np.ndarray,
    distance: np.ndarray,
    wall: Wall,
    angle: np.ndarray,
    normal: np.ndarray,
) -> None:
    """Turn the normals of a body and of the wall that melts into it, in place, where rays ``crossed`` its sphere."""
    middle, reach = solid.bound()
    offset = point[:, crossed] - middle[:, None].astype(np.float32)
    index = crossed[np.einsum("ij,ij->j", offset, offset) < reach**2]
    if not len(index):
        return
    near = np.ascontiguousarray(point[:, index])
    body = solid.distance(near)
    gap = wall.look_up("march", angle[index], near[2])[:, 0] - distance[index]
    weight = np.clip(np.float32(0.5) + (gap - body) / np.float32(2 * solid.blend), 0, 1)
    weight = np.where(owner[index] == number, np.maximum(weight, np.float32(0.5)), weight)
    normal[:, index] = _unit(weight * _unit(solid.gradient(near)) + (1 - weight) * normal[:, index])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.sqrt(np.einsum("ij,ij->j", vector, vector)), np.float32(1e-6))
