"""One generated CT scan: which part of the patient it covers, and what the scanner makes of it.

The anatomy is analytic (``phantom_anatomy``, ``phantom_liver``, ``phantom_regions``), every patient's is different, and
all of it follows from one seed. Nothing is taken from a real scan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_ssl_transfer.data.ct.body_part import BodyPart
from monai_ssl_transfer.data.phantoms.ct_anatomy import Tissue, Trunk
from monai_ssl_transfer.data.phantoms.ct_canvas import Canvas, Frame, scanner_blur, scanner_noise
from monai_ssl_transfer.data.phantoms.ct_liver import paint_tumours, paint_upper_abdomen
from monai_ssl_transfer.data.phantoms.ct_regions import paint_head, paint_legs
from monai_ssl_transfer.errors import DataError

AIR_HU, MAXIMUM_HU = -1024, 3071
# height in mm above the ischium at which the nominal body goes over into the next region
_BORDERS = ((-25.0, BodyPart.EXTREMITIES), (195.0, BodyPart.HIP_PELVIS), (425.0, BodyPart.ABDOMEN))
_BORDERS_ABOVE = ((655.0, BodyPart.THORAX), (np.inf, BodyPart.HEAD_NECK))


@dataclass(frozen=True)
class Region:
    """What a scan protocol covers.

    Args:
        middle: range of the height of the volume's centre, in mm of the nominal patient.
        centre: (x, y) of the field of view in the nominal patient in mm.
        reach: half of the width in mm that the field of view is fitted to, without fat.
        fat: share of the patient's fat that is added to ``reach``.
    """

    middle: tuple[float, float]
    centre: tuple[float, float]
    reach: float
    fat: float = 1.0


REGIONS = {
    "abdomen": Region((365, 400), (0, 0), 152),
    "trunk": Region((330, 370), (0, 0), 165),
    "thorax": Region((520, 560), (0, 0), 158),
    "head_neck": Region((770, 850), (0, 0), 104, 0.2),
    "hip_pelvis": Region((70, 125), (0, 0), 166),
    "extremities": Region((-600, -170), (0, 0), 145, 0.6),
    "spine": Region((260, 600), (0, 62), 60, 0.0),
}


@dataclass(frozen=True)
class PhantomOptions:
    """What kind of volume to generate.

    Args:
        size: rows and columns of a slice.
        slices: number of slices.
        region: one of ``REGIONS``: the part of the body that the scan covers.
        slice_spacing: range in mm of the distance between slices.
        tumour_share: share of the cases that have liver tumours.
        most_tumours: the largest number of tumours of a case.
        noise: range of the noise's standard deviation in HU.
        table: show the patient table.
    """

    size: int = 128
    slices: int = 40
    region: str = "abdomen"
    slice_spacing: tuple[float, float] = (2.5, 5.0)
    tumour_share: float = 0.75
    most_tumours: int = 6
    noise: tuple[float, float] = (7.0, 22.0)
    table: bool = True

    def __post_init__(self) -> None:
        if self.region not in REGIONS:
            raise DataError(f"There is no phantom of {self.region!r}: choose one of {', '.join(REGIONS)}.")
        if self.size < 16 or self.slices < 1:
            raise DataError(
                f"A phantom of {self.slices} slices of {self.size} pixels is too small: "
                "ask for at least 1 slice of 16 pixels."
            )


@dataclass(frozen=True)
class Phantom:
    """A generated CT volume in canonical order: slices from inferior to superior, rows to posterior, columns to left.

    Args:
        hu: (slices, rows, columns) int16 HU.
        labels: (slices, rows, columns) uint8: 0 background, 1 liver, 2 tumour.
        spacing: row and column distance in mm.
        slice_spacing: slice distance in mm.
        body_part: (slices,) uint8 ``BodyPart`` of every slice.
        region: the protocol that it was generated for.
        seed: the seed that it follows from.
        origin: (x, y, z) in RAS mm of the first voxel of the first slice.
    """

    hu: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float]
    slice_spacing: float
    body_part: np.ndarray
    region: str
    seed: int
    origin: tuple[float, float, float]

    @property
    def affine(self) -> np.ndarray:
        """4x4 matrix from (row, column, slice) to RAS mm."""
        affine = np.zeros((4, 4))
        affine[0, 1], affine[1, 0], affine[2, 2] = -self.spacing[1], -self.spacing[0], self.slice_spacing
        affine[:3, 3], affine[3, 3] = self.origin, 1
        return affine


def make_ct_phantom(seed: int, options: PhantomOptions | None = None) -> Phantom:
    """Generate one CT volume.

    Args:
        seed: the patient and the scan; the same seed and options give the same volume.
        options: what to generate.

    Returns:
        The volume, its liver labels and its geometry.
    """
    options = options or PhantomOptions()
    rng = np.random.Generator(np.random.Philox(seed))
    region = REGIONS[options.region]
    scale = (rng.uniform(0.92, 1.1), rng.uniform(0.9, 1.12), rng.uniform(0.93, 1.07))
    fat = float(rng.gamma(4.0, 4.2)) + 4
    field = 2 * (region.reach * scale[0] + region.fat * fat) * rng.uniform(1.02, 1.28)
    pixel = round(field / options.size, 4)
    step = round(float(rng.uniform(*options.slice_spacing)), 2)
    centre = (region.centre[0] + rng.normal(0, 4), region.centre[1] + rng.normal(0, 4), rng.uniform(*region.middle))
    frame = Frame((options.slices, options.size, options.size), (step, pixel, pixel), centre, scale)
    canvas = Canvas(frame, rng)
    _paint_patient(canvas, rng, fat, options)
    hu = _scan(canvas, rng, options, fat)
    labels = canvas.organ
    half = [(count - 1) / 2 * size for count, size in zip(frame.shape, frame.spacing, strict=True)]
    origin = (half[2] - centre[0] * scale[0], half[1] - centre[1] * scale[1], centre[2] * scale[2] - half[0])
    parts = _body_parts(canvas.axes[0], options.region)
    place = tuple(round(float(value), 3) for value in origin)
    return Phantom(hu, labels, (pixel, pixel), step, parts, options.region, seed, place)  # type: ignore[arg-type]


def _paint_patient(canvas: Canvas, rng: np.random.Generator, fat: float, options: PhantomOptions) -> None:
    tissue = Tissue.draw(rng)
    low, high = float(canvas.axes[0][0]), float(canvas.axes[0][-1])
    if low < 30:
        paint_legs(canvas, rng, tissue, fat)
    if high > -80:
        trunk = Trunk(canvas, rng, tissue, fat)
        trunk.paint()
        if high > 180 and low < 500:
            paint_upper_abdomen(trunk)
            sick = rng.random() < options.tumour_share
            paint_tumours(trunk, int(rng.integers(1, options.most_tumours + 1)) if sick else 0)
    if high > 690:
        paint_head(canvas, rng, tissue, fat)


def _scan(canvas: Canvas, rng: np.random.Generator, options: PhantomOptions, fat: float) -> np.ndarray:
    """What the scanner makes of the patient: table, blur, noise, calibration, round field of view; int16 HU."""
    hu = canvas.hu
    if options.table:
        _table(canvas, rng, fat)
    hu = scanner_blur(hu, float(rng.uniform(0.35, 0.6)), float(rng.uniform(0.02, 0.12)))
    noise = scanner_noise(hu.shape, rng, float(rng.uniform(0.2, 0.42)))
    level = rng.uniform(*options.noise)
    body = scanner_blur((hu > -500).astype(np.float32), options.size / 12, 0)  # more noise where more tissue absorbs
    hu = hu + level * (0.45 + 0.75 * body) * noise + np.float32(rng.normal(0, 4))
    if rng.random() < 0.35:  # the scanner pads what lies outside its round field of view
        rows, columns = np.ogrid[-1 : 1 : complex(0, hu.shape[1]), -1 : 1 : complex(0, hu.shape[2])]
        hu[:, rows**2 + columns**2 > 1] = AIR_HU
    return np.clip(np.rint(hu), AIR_HU, MAXIMUM_HU).astype(np.int16)


def _table(canvas: Canvas, rng: np.random.Generator, fat: float) -> None:
    """A curved table top below the patient: two thin shells with foam between them. It follows no warp."""
    y, x = canvas.axes[1][:, None], canvas.axes[2][None, :]
    top = 112 + fat + rng.uniform(4, 10) - (x / 200) ** 2 * rng.uniform(15, 40)
    free = canvas.hu < -700
    shell = np.minimum(2.2 - np.abs(y - top), 210 - np.abs(x))
    foam = np.minimum(np.minimum(y - top, top + 24 - y), 210 - np.abs(x))
    lower = np.minimum(2.2 - np.abs(y - top - 26), 210 - np.abs(x))
    for depth, value in ((foam, -940.0), (shell, -40.0), (lower, -90.0)):
        part = np.clip(0.5 + depth / (2 * canvas.edge), 0, 1)
        canvas.hu += free * part * (np.float32(value) - canvas.hu)


def _body_parts(height: np.ndarray, region: str) -> np.ndarray:
    """``BodyPart`` of every slice from its height in the nominal patient; a spine scan is of the spine throughout."""
    if region == "spine":
        return np.full(len(height), BodyPart.SPINE, np.uint8)
    borders = (*_BORDERS, *_BORDERS_ABOVE)
    places = np.searchsorted([border for border, _ in borders], height)
    return np.array([part for _, part in borders], np.uint8)[places]
