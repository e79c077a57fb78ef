"""Drawing board of the generated CT: warped patient coordinates, soft-edged solids, smooth fields, scanner noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import fft, ndimage

WARP_MM = 9.0  # no point of the anatomy is displaced by more than this
Point = tuple[float, float, float]
Box = tuple[slice, slice, slice]


class Solid(NamedTuple):
    """A body part before it is painted.

    Args:
        box: part of the volume that can hold it, as slices of (slice, row, column).
        depth: float32 array over the box: mm below the surface, negative outside.
    """

    box: Box
    depth: np.ndarray


@dataclass(frozen=True)
class Frame:
    """Where a volume lies in the patient.

    Args:
        shape: slices, rows, columns.
        spacing: slice, row and column distance in mm.
        centre: (x, y, z) in mm of the volume's centre in patient coordinates: x to the left, y posterior, z superior.
        scale: how much larger than the nominal patient this one is along (x, y, z).
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    centre: Point
    scale: Point

    def axis(self, number: int) -> np.ndarray:
        """Nominal patient coordinate in mm along array axis ``number`` (0 slice, 1 row, 2 column)."""
        count, step = self.shape[number], self.spacing[number]
        offset = self.centre[2 - number]
        return ((np.arange(count) - (count - 1) / 2) * step / self.scale[2 - number] + offset).astype(np.float32)


class Canvas:
    """A CT volume under construction, in the coordinates of a nominal patient (mm; x left, y posterior, z superior).

    Args:
        frame: grid and its place in the patient.
        rng: source of the warp that makes every patient's outlines differ.
        warp: standard deviation of the warp in mm.
    """

    def __init__(self, frame: Frame, rng: np.random.Generator, warp: float = 4.0) -> None:
        self.frame = frame
        self.axes = tuple(frame.axis(number) for number in range(3))
        self.hu = np.full(frame.shape, -1000.0, np.float32)
        self.organ = np.zeros(frame.shape, np.uint8)
        self.edge = max(0.6 * min(frame.spacing[1:]), 0.4)  # mm over which a surface fades: partial volume
        moves = [np.clip(warp * self.smooth_field(rng, 55.0), -WARP_MM, WARP_MM) for _ in range(3)]
        self.z = self.axes[0][:, None, None] + moves[0]
        self.y = self.axes[1][None, :, None] + moves[1]
        self.x = self.axes[2][None, None, :] + moves[2]

    def smooth_field(self, rng: np.random.Generator, length: float) -> np.ndarray:
        """A Gaussian-like random field of unit standard deviation that varies over ``length`` mm, float32 (Z, Y, X)."""
        bases = [_spline_basis(axis, length) for axis in self.axes]
        field = rng.standard_normal([basis.shape[1] for basis in bases], np.float32)
        for number in (0, 1, 2):  # from the shortest axis to the longest: least work
            field = np.moveaxis(np.tensordot(bases[number], field, axes=(1, number)), 0, number)
        return np.ascontiguousarray(field) * np.float32((151 / 315) ** -1.5)

    def box(self, low: Point, high: Point) -> Box:
        """The part of the grid in which a solid between two corners can appear, whatever the warp does."""
        slices = []
        for number, axis in enumerate(self.axes):
            margin = WARP_MM + 2 * self.edge
            first, last = np.searchsorted(axis, [low[2 - number] - margin, high[2 - number] + margin])
            slices.append(slice(int(first), int(last)))
        return slices[0], slices[1], slices[2]

    def whole(self, depth: np.ndarray) -> Solid:
        """A solid given by its depth in every voxel."""
        return Solid((slice(None), slice(None), slice(None)), depth)

    def ellipsoid(self, centre: Point, radii: Point, turn: float = 0.0, lean: float = 0.0) -> Solid:
        """An ellipsoid.

        Args:
            centre: (x, y, z) in mm.
            radii: along x, y, z in mm.
            turn: rotation in the axial plane in radians (x towards y).
            lean: how far x shifts per mm of z, for organs that lie obliquely.
        """
        reach = max(radii[0], radii[1]) if turn else 0.0
        extent = (max(radii[0], reach) + abs(lean) * radii[2], max(radii[1], reach), radii[2])
        low, high = _corners(centre, extent)
        box = self.box(low, high)
        z = self.z[box] - centre[2]
        x, y = self.x[box] - (centre[0] + lean * z), self.y[box] - centre[1]
        if turn:
            x, y = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
        a, b, c = radii
        reduced = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
        gradient = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2) + np.float32(1e-6)
        # first-order distance to the surface; near the centre, where it diverges, the smallest radius bounds it
        return Solid(box, np.minimum((1 - reduced) * np.maximum(reduced, 0.3) / gradient, min(radii)))

    def tube(self, start: Point, end: Point, radius: float, end_radius: float | None = None) -> Solid:
        """A round tube (capsule) between two points, its radius in mm changing from ``radius`` to ``end_radius``."""
        last = radius if end_radius is None else end_radius
        widest = max(radius, last)
        low = tuple(min(a, b) - widest for a, b in zip(start, end, strict=True))
        high = tuple(max(a, b) + widest for a, b in zip(start, end, strict=True))
        box = self.box(low, high)  # type: ignore[arg-type]
        points = (self.x[box] - start[0], self.y[box] - start[1], self.z[box] - start[2])
        way = [b - a for a, b in zip(start, end, strict=True)]
        square = max(sum(w * w for w in way), 1e-6)
        along = np.clip(sum(p * np.float32(w / square) for p, w in zip(points, way, strict=True)), 0, 1)
        distance = np.sqrt(sum((p - along * np.float32(w)) ** 2 for p, w in zip(points, way, strict=True)))
        return Solid(box, radius + along * np.float32(last - radius) - distance)

    def paint(
        self,
        solid: Solid,
        hu: float | np.ndarray,
        *,
        code: int = 0,
        limit: np.ndarray | None = None,
        only: tuple[int, ...] | None = None,
    ) -> None:
        """Put a solid over what is there.

        Args:
            solid: what to paint.
            hu: its HU, one number or one per voxel of the whole volume.
            code: organ code that its voxels get (0: none).
            limit: depth (Z, Y, X) of another solid that it may not leave.
            only: organ codes that it may cover; None covers everything.
        """
        box, depth = solid
        if limit is not None:
            depth = np.minimum(depth, limit[box])
        part = np.clip(0.5 + depth / (2 * np.float32(self.edge)), 0, 1)
        organ = self.organ[box]
        if only is not None:
            part = part * np.isin(organ, only)
        target = self.hu[box]
        target += part * ((hu[box] if isinstance(hu, np.ndarray) else np.float32(hu)) - target)
        organ[part > 0.5] = code

    def bone(self, solid: Solid, cortex: float, marrow: float, shell: float) -> None:
        """Paint a bone: a cortex of ``shell`` mm around marrow, both in HU."""
        self.paint(solid, cortex)
        self.paint(Solid(solid.box, solid.depth - np.float32(shell)), marrow)


def _corners(centre: Point, extent: Point) -> tuple[Point, Point]:
    (x, y, z), (a, b, c) = centre, extent
    return (x - a, y - b, z - c), (x + a, y + b, z + c)


def _spline_basis(axis: np.ndarray, length: float) -> np.ndarray:
    """Cubic B-spline weights of every coordinate for the knots that reach it: float32 (len(axis), knots)."""
    first, last = int(np.floor(axis[0] / length)) - 1, int(np.floor(axis[-1] / length)) + 2
    distance = np.abs(axis[:, None] / length - np.arange(first, last + 1)[None, :])
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def scanner_blur(hu: np.ndarray, pixels: float, between: float) -> np.ndarray:
    """Point spread of a scanner: in-plane Gaussian of ``pixels`` and a share ``between`` of each neighbouring slice."""
    for axis in (1, 2):
        hu = ndimage.gaussian_filter1d(hu, pixels, axis=axis, mode="nearest", truncate=3.0)
    if between and len(hu) > 1:
        hu = ndimage.correlate1d(hu, [between, 1 - 2 * between, between], axis=0, mode="nearest")
    return hu


def scanner_noise(shape: tuple[int, int, int], rng: np.random.Generator, cutoff: float) -> np.ndarray:
    """Noise of unit standard deviation with the spectrum of filtered back projection, float32 (Z, Y, X).

    The power spectrum rises with frequency (ramp) and falls off with the reconstruction kernel, so neighbouring
    pixels are correlated as in CT (Kijewski and Judy, Phys Med Biol 32:565, 1987).

    Args:
        shape: slices, rows, columns.
        rng: source of the white noise.
        cutoff: frequency in cycles per pixel at which the kernel has fallen to 1/e (0.15 smooth .. 0.4 sharp).
    """
    spectrum = fft.rfft2(rng.standard_normal(shape, np.float32))
    frequency = np.hypot(np.fft.fftfreq(shape[1])[:, None], np.fft.rfftfreq(shape[2])[None, :])
    spectrum *= (np.sqrt(frequency + 0.01) * np.exp(-((frequency / cutoff) ** 2))).astype(np.float32)
    noise = fft.irfft2(spectrum, shape[1:])
    return (noise / max(float(noise.std()), 1e-6)).astype(np.float32)
