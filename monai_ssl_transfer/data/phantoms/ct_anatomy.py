"""The trunk of a generated patient: outline, skeleton, thorax, abdomen and pelvis, from thighs to shoulders.

Coordinates are mm in a nominal patient (x left, y posterior, z superior, z = 0 at the ischium); ``Canvas`` scales and
warps them for every patient. Later paint covers earlier paint, so the order of the calls is the order of the organs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_ssl_transfer.data.phantoms.ct_canvas import Canvas, Solid

LIVER, TUMOUR = 1, 2
DIAPHRAGM_TOP = 462.0

# skin without fat and body cavity: half-widths (x, y) in mm at heights z in mm
_SKIN = np.array(
    [
        *([-60, 176, 92], [0, 168, 104], [70, 168, 106], [130, 160, 104], [190, 148, 98], [250, 140, 97]),
        *([320, 144, 102], [390, 151, 108], [460, 154, 112], [530, 158, 110], [600, 172, 100], [645, 196, 86]),
        *([672, 150, 76], [690, 84, 66], [715, 62, 62], [740, 60, 64], [790, 62, 70]),
    ],
    np.float32,
)
_CAVITY = np.array(
    [
        *([0, 42, 40], [25, 66, 58], [70, 74, 66], [130, 100, 72], [180, 120, 74], [250, 121, 77], [320, 125, 82]),
        *([390, 132, 89], [460, 133, 93], [530, 129, 89], [590, 108, 76], [630, 70, 54], [660, 20, 22]),
    ],
    np.float32,
)


@dataclass(frozen=True)
class Tissue:
    """HU of one scan's tissues: one contrast phase of one patient."""

    liver: float
    vessel: float
    aorta: float
    spleen: float
    kidney: float
    muscle: float
    fat: float
    pancreas: float
    myocardium: float
    lung: float
    cortex: float
    marrow: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Tissue:
        """Draw a contrast phase; organs next to the liver overlap with it in HU on purpose."""
        liver = rng.uniform(70, 130)
        vessel = liver + rng.uniform(15, 60)
        return cls(
            liver=liver,
            vessel=vessel,
            aorta=vessel + rng.uniform(-15, 110),
            spleen=liver + rng.uniform(-20, 25),
            kidney=liver + rng.uniform(5, 80),
            muscle=rng.uniform(48, 72),
            fat=rng.uniform(-115, -90),
            pancreas=rng.uniform(65, 110),
            myocardium=liver + rng.uniform(-25, 15),
            lung=rng.uniform(-880, -800),
            cortex=rng.uniform(550, 950),
            marrow=rng.uniform(120, 260),
        )


class Trunk:
    """Paints one patient's trunk on a canvas.

    Args:
        canvas: empty canvas.
        rng: source of the patient's individual anatomy.
        tissue: HU of the scan.
        fat: thickness of the fat under the skin in mm.
    """

    def __init__(self, canvas: Canvas, rng: np.random.Generator, tissue: Tissue, fat: float) -> None:
        self.canvas, self.rng, self.tissue, self.fat = canvas, rng, tissue, fat
        self.texture = canvas.smooth_field(rng, 14.0)
        self.fine = canvas.smooth_field(rng, 7.0)
        self.skin = self._outline(_SKIN, 2.35, 0.0)
        self.cavity = self._outline(_CAVITY, 2.2, -12.0)
        self.diaphragm = self._diaphragm()  # mm below it
        self.abdomen = np.minimum(self.cavity - 3, self.diaphragm - 2)

    def near(self, spread: float) -> float:
        """A random displacement in mm."""
        return float(np.clip(self.rng.normal(0, spread), -2 * spread, 2 * spread))

    def vary(self, value: float, part: float = 0.12) -> float:
        """``value`` with a random relative change."""
        return float(value * (1 + np.clip(self.rng.normal(0, part), -2 * part, 2 * part)))

    def _outline(self, profile: np.ndarray, power: float, y: float) -> np.ndarray:
        """Depth in mm below a super-elliptic tube whose half-widths change with height."""
        height = self.canvas.axes[0]
        wide = np.interp(height, profile[:, 0], profile[:, 1]).astype(np.float32)[:, None, None]
        deep = np.interp(height, profile[:, 0], profile[:, 2]).astype(np.float32)[:, None, None]
        across, along = np.abs(self.canvas.x) / wide, np.abs(self.canvas.y - y) / deep
        reduced = (across**power + along**power) ** np.float32(1 / power)
        outside = np.minimum(profile[0, 0] - 400 - height, 0)[:, None, None]  # open downwards
        outside = outside + np.maximum(height - profile[-1, 0], 0)[:, None, None]
        return (1 - reduced) * np.sqrt(wide * deep) - np.maximum(outside, 0)

    def _diaphragm(self) -> np.ndarray:
        x, y, z = self.canvas.x, self.canvas.y, self.canvas.z
        breath = self.near(8)
        right = DIAPHRAGM_TOP + breath - 82 * (((x + 62) / 74) ** 2 + ((y + 6) / 88) ** 2)
        left = DIAPHRAGM_TOP - 14 + breath - 82 * (((x - 66) / 70) ** 2 + ((y + 2) / 88) ** 2)
        middle = 438 + breath - 70 * (((x - 4) / 62) ** 2 + ((y + 30) / 80) ** 2)  # the tendon under the heart
        return np.maximum(np.maximum(right, left), np.maximum(middle, 350)) - z

    def paint(self) -> None:
        """Paint everything except the organs of the upper abdomen (``phantom_liver``)."""
        self._wall()
        self._lungs()
        self._skeleton()
        self._mediastinum()
        self._gut()
        self._pelvic_organs()

    def _wall(self) -> None:
        canvas, tissue = self.canvas, self.tissue
        belly = 1 + 0.5 * np.exp(-(((canvas.axes[0] - 230) / 130) ** 2))[:, None, None] * (canvas.y < 0)
        thickness = (self.fat * belly).astype(np.float32)
        canvas.paint(canvas.whole(self.skin + thickness + 2), 30.0)  # skin
        canvas.paint(canvas.whole(self.skin + thickness), tissue.fat + 6 * self.texture)
        septa = np.clip((np.abs(canvas.smooth_field(self.rng, 24.0)) - 0.04) * 9, -0.4, 1)
        muscle = tissue.fat + (tissue.muscle - tissue.fat) * np.clip(septa + 0.1 * self.fine, 0, 1.06)
        canvas.paint(canvas.whole(self.skin), muscle)
        canvas.paint(canvas.whole(self.cavity), tissue.fat + 9 * self.texture + 7 * np.abs(self.fine))
        strands = 4 - 26 * np.hypot(self.texture, canvas.smooth_field(self.rng, 16.0))
        canvas.paint(canvas.whole(strands), tissue.vessel - 30, limit=self.abdomen)

    def _lungs(self) -> None:
        canvas, tissue = self.canvas, self.tissue
        width = 21 + 9 * np.clip(canvas.y / 60, -1, 1) + 5 * self.texture + 13 * np.exp(-(((canvas.z - 535) / 22) ** 2))
        middle = (np.abs(canvas.x - 3) - width) / 30
        lungs = np.minimum(np.minimum(self.cavity - 4, -self.diaphragm), 30 * middle)
        canvas.paint(canvas.whole(lungs), tissue.lung + 18 * self.texture)
        for length, width in ((19.0, 2.2), (11.0, 1.2)):  # the zero lines of two fields are vessel-like curves
            lines = np.hypot(canvas.smooth_field(self.rng, length), canvas.smooth_field(self.rng, length))
            canvas.paint(canvas.whole(width - 0.55 * length * lines), tissue.muscle - 20, limit=lungs)

    def _skeleton(self) -> None:
        self._ribs()
        self._spine()
        self._pelvis()
        self._shoulders()

    def _ribs(self) -> None:
        canvas, tissue = self.canvas, self.tissue
        angle = np.abs(np.arctan2(canvas.x, canvas.y - 12))  # 0 at the spine, pi at the sternum
        drop = 62 * np.sin(np.clip(angle * 0.55, 0, np.pi / 2)) ** 2 * 1.6
        pitch = np.float32(self.vary(27, 0.05))
        phase = np.mod(canvas.z + drop, pitch) - pitch / 2
        from_wall = self.cavity + 7
        depth = 5.6 - np.hypot(phase * 0.85, from_wall)
        limits = np.minimum(canvas.z - 300 - 46 * np.clip(angle - 0.7, 0, 2.2), 640 - canvas.z)
        depth = np.minimum(depth, limits * 0.3)
        front = np.abs(canvas.x) - 62  # costal cartilage carries no mineral
        canvas.paint(canvas.whole(depth), tissue.cortex * 0.8, limit=np.where(canvas.y < -30, front, 9.0))
        canvas.paint(canvas.whole(depth - 2.2), tissue.marrow, limit=np.where(canvas.y < -30, front, 9.0))
        canvas.paint(canvas.whole(depth), 95.0, limit=np.where(canvas.y < -30, -front, -9.0))
        canvas.bone(canvas.tube((0, -112, 480), (0, -88, 620), 8), tissue.cortex * 0.6, tissue.marrow * 0.7, 2.0)

    def _spine(self) -> None:
        canvas, tissue = self.canvas, self.tissue
        box = canvas.box((-60, 20, 165), (60, 115, 760))
        x, y, z = canvas.x[box], canvas.y[box] - self._lordosis(canvas.z[box]), canvas.z[box]
        size = np.interp(z, [160, 300, 600, 700, 760], [1.12, 1.08, 0.86, 0.62, 0.55]).astype(np.float32)
        x, y = x / size, (y - 48) / size
        level = np.mod(z, 33.0) - 16.5
        for side in (-1, 1):
            back = Solid(box, 1.0 * (24 - np.hypot((x - side * 32) * 0.8, (y - 34) * 1.15)))
            canvas.paint(back, tissue.muscle + 8 * self.texture)
        body = (19 - np.hypot(x * 0.88, y * 1.12)) * size
        canvas.paint(Solid(box, body), 85.0)  # the discs remain of this
        vertebra = np.minimum(body + 1.2 * np.abs(level) / 10, 13.0 - np.abs(level))
        canvas.bone(Solid(box, vertebra), tissue.cortex * 0.75, tissue.marrow, 1.9)
        ring = 3.4 - np.abs(np.hypot(x, (y - 25) * 1.05) - 13.0)
        arch = np.minimum(np.minimum(ring, y - 15), 12 - np.abs(level + 2))
        canvas.bone(Solid(box, arch * size), tissue.cortex * 0.7, tissue.marrow * 1.3, 2.0)
        spinous = np.minimum(3.6 - np.abs(x), 15 - np.abs(y - 51 - 0.3 * level))
        canvas.bone(Solid(box, np.minimum(spinous, 9 - np.abs(level + 4)) * size), tissue.cortex * 0.8, 250.0, 2.0)
        across = np.minimum(4.2 - np.hypot(y - 26 - 0.16 * np.abs(x), level), 37 - np.abs(x))
        canvas.paint(Solid(box, np.minimum(across, np.abs(x) - 12) * size), tissue.cortex * 0.6)
        canvas.paint(Solid(box, (10.5 - np.hypot(x, (y - 25) * 1.1)) * size), 22.0)
        canvas.paint(Solid(box, (5.5 - np.hypot(x * 0.8, y - 25)) * size), 42.0)

    def _lordosis(self, z: np.ndarray) -> np.ndarray:
        return np.interp(z, [150, 250, 360, 520, 640, 760], [4, -8, 2, 17, 2, -22]).astype(np.float32)

    def _pelvis(self) -> None:
        canvas, tissue = self.canvas, self.tissue
        hard, soft = tissue.cortex * 0.85, tissue.marrow * 0.8
        canvas.bone(canvas.ellipsoid((0, 66, 140), (50, 20, 52)), hard * 0.7, soft, 2.2)
        for side in (-1, 1):
            wing = canvas.ellipsoid((side * 88, 18, 152), (64, 8.5, 62), side * -0.92)
            canvas.bone(wing, hard, soft, 2.4)
            socket = canvas.ellipsoid((side * 86, 10, 78), (34, 34, 34))
            canvas.bone(socket, hard, soft, 3.2)
            canvas.bone(canvas.tube((side * 76, -18, 62), (side * 9, -66, 34), 9), hard, soft, 2.4)
            canvas.bone(canvas.tube((side * 80, 36, 62), (side * 60, 42, 0), 13, 11), hard, soft, 2.6)
            canvas.bone(canvas.tube((side * 58, 36, 2), (side * 16, -48, 22), 7), hard, soft, 2.4)
            canvas.paint(canvas.ellipsoid((side * 94, 6, 76), (28, 28, 27)), 60.0)
            canvas.bone(canvas.tube((side * 94, 6, 76), (side * 128, 16, 44), 15, 14), hard, soft, 2.6)
            canvas.bone(canvas.tube((side * 130, 16, 52), (side * 100, 0, -330), 16, 13.5), hard, 20.0, 5.5)
            canvas.bone(canvas.ellipsoid((side * 94, 6, 76), (24.5, 24.5, 24.5)), hard, soft * 1.4, 2.0)

    def _shoulders(self) -> None:
        canvas, tissue = self.canvas, self.tissue
        for side in (-1, 1):
            canvas.bone(canvas.ellipsoid((side * 168, 4, 638), (23, 23, 23)), tissue.cortex, tissue.marrow, 2.4)
            canvas.bone(canvas.tube((side * 20, -70, 625), (side * 150, -8, 660), 6.5), tissue.cortex, 200.0, 2.4)
            blade = canvas.ellipsoid((side * 104, 70, 572), (44, 4.6, 66), side * -0.6, side * 0.2)
            canvas.bone(blade, tissue.cortex * 0.9, tissue.marrow, 2.2)

    def _mediastinum(self) -> None:
        canvas, tissue, rng = self.canvas, self.tissue, self.rng
        heart = (22 + self.near(6), -36 + self.near(5), 487 + self.near(6))
        size = self.vary(1.0, 0.08)
        x, y, z = heart
        canvas.paint(canvas.ellipsoid(heart, (64 * size, 52 * size, 56 * size), 0.5), tissue.fat + 4 * self.texture)
        outer = canvas.ellipsoid(heart, (59 * size, 46 * size, 52 * size), 0.5)
        canvas.paint(outer, tissue.myocardium + 3 * self.texture)
        blood = tissue.aorta - rng.uniform(0, 30)
        for dx, dy, dz, rx, ry, rz in ((20, 9, -4, 22, 17, 32), (-14, -17, -4, 26, 15, 32), (2, 28, 22, 26, 14, 20)):
            part = canvas.ellipsoid((x + dx, y + dy, z + dz), (rx * size, ry * size, rz * size), 0.6)
            canvas.paint(part, blood)
        canvas.paint(canvas.ellipsoid((x - 40, y + 4, z + 6), (20, 24, 28)), blood - 10)
        canvas.paint(canvas.tube((-22, 18, 190), (-24, 2, 470), 11, 13), tissue.vessel + 8)
        canvas.paint(canvas.tube((-28, -22, 520), (-30, -24, 650), 9), tissue.aorta + 5)  # superior vena cava
        canvas.paint(canvas.tube((-8, -28, 520), (-14, -36, 578), 15), tissue.aorta)
        canvas.paint(canvas.tube((-14, -36, 578), (20, 30, 578), 13), tissue.aorta)
        canvas.paint(canvas.tube((20, 30, 578), (18, 34, 440), 12, 11.5), tissue.aorta)
        canvas.paint(canvas.tube((18, 34, 440), (6, 22, 215), 11.5, 9), tissue.aorta)
        for side in (-1, 1):
            canvas.paint(canvas.tube((6, 22, 215), (side * 46, 2, 135), 7.5, 6.5), tissue.aorta)
            canvas.paint(canvas.tube((side * 46, 2, 135), (side * 66, -62, 40), 6), tissue.aorta)
            canvas.paint(canvas.tube((side * 52, 14, 130), (side * 56, -56, 40), 6.5), tissue.vessel)
            canvas.paint(canvas.tube((side * 66, -64, 40), (side * 84, -30, -300), 6, 4.5), tissue.aorta)
            canvas.paint(canvas.tube((side * 6, -20, 540), (side * 46, 0, 530), 11, 7), tissue.aorta - 10)
            canvas.paint(canvas.tube((side * 14, -12, 590), (side * 26, -2, 760), 5.5, 4.5), tissue.aorta)
            canvas.paint(canvas.tube((0, 4, 560), (side * 38, 8, 528), 8, 5.5), -960.0)  # main bronchi
        canvas.paint(canvas.tube((0, 4, 556), (0, -18, 735), 10.5), 40.0)
        canvas.paint(canvas.tube((0, 4, 556), (0, -18, 735), 8.5), -980.0)
        canvas.paint(canvas.tube((6, 16, 700), (12, 18, 445), 7.5), tissue.muscle - 8)

    def _gut(self) -> None:
        rng = self.rng
        for _ in range(int(rng.integers(26, 40))):
            centre = (rng.uniform(-80, 85), rng.uniform(-66, 14), rng.uniform(90, 315))
            radius = rng.uniform(10, 17)
            self._loop(centre, (radius * rng.uniform(1, 2.2), radius, radius * rng.uniform(0.8, 1.6)), 0.25)
        for start, end in (
            ((-98, 8, 205), (-96, 0, 300)),
            ((-92, -10, 300), (-40, -62, 290)),
            ((-40, -62, 290), (50, -64, 300)),
            ((50, -64, 300), (102, -4, 350)),
            ((104, 4, 350), (104, 20, 200)),
            ((104, 20, 200), (40, 30, 110)),
            ((40, 30, 110), (0, 42, 80)),
        ):
            for share in np.linspace(0, 1, 4):
                centre = tuple(a + share * (b - a) + self.near(3) for a, b in zip(start, end, strict=True))
                self._loop(centre, (self.vary(20), self.vary(19), self.vary(20)), 0.6)  # type: ignore[arg-type]

    def _loop(self, centre: tuple[float, float, float], radii: tuple[float, float, float], gas: float) -> None:
        """One bowel loop: a wall, then liquid, contrast medium or stool, perhaps gas on top (patient supine)."""
        canvas, rng = self.canvas, self.rng
        wall = canvas.ellipsoid(centre, radii, rng.uniform(-0.8, 0.8))
        if not wall.depth.size:
            return
        canvas.paint(wall, rng.uniform(60, 115), limit=self.abdomen)
        inside = Solid(wall.box, wall.depth - 2.5)
        content = rng.choice([rng.uniform(5, 45), rng.uniform(40, 100), rng.uniform(150, 320)], p=[0.5, 0.35, 0.15])
        canvas.paint(inside, content + rng.uniform(4, 30) * self.fine, limit=self.abdomen)
        if rng.random() < gas:
            level = centre[1] + rng.uniform(-0.6, 0.6) * radii[1]
            above = np.minimum(inside.depth, level - canvas.y[wall.box])
            canvas.paint(Solid(wall.box, above), -960.0, limit=self.abdomen)

    def _pelvic_organs(self) -> None:
        canvas, rng = self.canvas, self.rng
        full = self.vary(1.0, 0.2)
        bladder = canvas.ellipsoid((0, -26, 62), (40 * full, 32 * full, 30 * full))
        canvas.paint(bladder, 45.0)
        canvas.paint(Solid(bladder.box, bladder.depth - 3.5), rng.choice([rng.uniform(0, 15), rng.uniform(100, 300)]))
        canvas.paint(canvas.ellipsoid((self.near(4), 12, 52), (27, 17, 24)), self.tissue.muscle + 15)
        self._loop((0.0, 44.0, 55.0), (20.0, 18.0, 34.0), 0.5)
