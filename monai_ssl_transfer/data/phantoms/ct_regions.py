"""Head, neck and legs of a generated patient, in the coordinates of ``ct_anatomy``."""

from __future__ import annotations

import numpy as np

from monai_ssl_transfer.data.phantoms.ct_anatomy import Tissue
from monai_ssl_transfer.data.phantoms.ct_canvas import Canvas, Solid

SKULL = (0.0, 4.0, 848.0)  # centre of the skull, mm


def paint_head(canvas: Canvas, rng: np.random.Generator, tissue: Tissue, fat: float) -> None:
    """Paint head and upper neck over a trunk (which brings the lower neck, spine and airway).

    Args:
        canvas: canvas that holds a painted trunk.
        rng: source of the individual anatomy.
        tissue: HU of the scan.
        fat: thickness of the fat under the skin in mm; a fifth of it lies on the head.
    """
    texture, fine = canvas.smooth_field(rng, 14.0), canvas.smooth_field(rng, 7.0)
    thin = 2 + fat / 5
    face = canvas.ellipsoid((0, -32, 790), (58, 66, 74))
    skull = canvas.ellipsoid(SKULL, (74 * rng.uniform(0.94, 1.06), 94 * rng.uniform(0.94, 1.06), 84))
    for solid in (face, skull):
        canvas.paint(Solid(solid.box, solid.depth + thin + 1), tissue.fat + 40)
    for solid in (face, skull):
        canvas.paint(solid, tissue.muscle - 15 + 12 * texture)
    _face(canvas, rng, tissue)
    above_base = canvas.z[skull.box] - 812 + 0.27 * (canvas.y[skull.box] + 20)
    vault = np.minimum(np.minimum(skull.depth - 4, 10.5 - skull.depth), above_base + 8)
    canvas.bone(Solid(skull.box, vault), tissue.cortex * 1.25, tissue.marrow * 2.4, 2.0)
    floor = np.minimum(skull.depth - 5, 3.5 + 1.5 * texture[skull.box] - np.abs(above_base + 2.5))
    canvas.paint(Solid(skull.box, floor), tissue.cortex)
    base = np.minimum(skull.depth - 10.5, above_base)
    canvas.paint(Solid(skull.box, base), 7.0)  # cerebrospinal fluid in the outermost sulci
    _brain(canvas, rng, Solid(skull.box, base - 2.5 + 1.6 * fine[skull.box]), texture, fine)


def _brain(canvas: Canvas, rng: np.random.Generator, brain: Solid, texture: np.ndarray, fine: np.ndarray) -> None:
    grey, white = rng.uniform(36, 44), rng.uniform(26, 31)
    canvas.paint(brain, grey)
    folds = Solid(brain.box, brain.depth - 6 - 3.5 * fine[brain.box] - 3 * texture[brain.box])
    canvas.paint(folds, white)
    for side in (-1, 1):
        canvas.paint(canvas.ellipsoid((side * 16, 0, 852), (9, 16, 13)), grey - 2)  # deep grey matter
        canvas.paint(canvas.ellipsoid((side * 11, -18, 866), (5, 24, 10), side * 0.2), 6.0)  # ventricles
        canvas.paint(canvas.ellipsoid((side * 18, 30, 860), (5.5, 20, 11), side * -0.3), 6.0)
    falx = Solid(brain.box, np.minimum(brain.depth + 4, 1.3 - np.abs(canvas.x[brain.box])))
    canvas.paint(Solid(falx.box, np.minimum(falx.depth, canvas.z[falx.box] - 872)), 48.0)


def _face(canvas: Canvas, rng: np.random.Generator, tissue: Tissue) -> None:
    """Orbits, sinuses, nose, jaws with teeth, pharynx."""
    bone = tissue.cortex * 1.1
    sinuses = rng.uniform(0.8, 1.15)
    for side in (-1, 1):
        canvas.paint(canvas.ellipsoid((side * 32, -66, 818), (21, 24, 19)), bone * 0.6)
        canvas.paint(canvas.ellipsoid((side * 32, -68, 818), (18.5, 25, 16.5)), tissue.fat)
        canvas.paint(canvas.ellipsoid((side * 32, -76, 818), (12, 12, 12)), 28.0)
        canvas.paint(canvas.ellipsoid((side * 30, -56, 790), (19, 20, 17)), bone * 0.7)
        canvas.paint(canvas.ellipsoid((side * 30, -56, 790), (17 * sinuses, 18 * sinuses, 15)), -960.0)
        canvas.bone(canvas.tube((side * 50, -2, 800), (side * 46, -22, 752), 7), bone, tissue.marrow * 2, 2.4)
        canvas.bone(canvas.tube((side * 46, -22, 752), (side * 6, -86, 740), 8), bone, tissue.marrow * 2, 2.6)
        canvas.bone(canvas.tube((side * 30, -58, 768), (side * 6, -86, 764), 6.5), bone, tissue.marrow * 2, 2.2)
        for step in np.linspace(0, 1, 6):
            tooth = (side * (5 + 26 * step), -86 + 30 * step**2, 753.0)
            canvas.paint(canvas.ellipsoid(tooth, (3.6, 4.2, 9)), 1700.0)
        canvas.paint(canvas.ellipsoid((side * 52, 22, 806), (13, 16, 16)), bone * 0.8)
        cells = canvas.ellipsoid((side * 54, 24, 806), (10, 13, 13))
        canvas.paint(Solid(cells.box, cells.depth - 3), -650.0)
    canvas.paint(canvas.ellipsoid((0, -100, 796), (14, 20, 20)), 20.0)
    canvas.paint(canvas.ellipsoid((0, -66, 792), (12, 34, 20)), -940.0)
    canvas.paint(canvas.ellipsoid((0, -66, 792), (1.6, 34, 20)), 200.0)
    canvas.paint(canvas.ellipsoid((0, -60, 815), (11, 26, 12)), -800.0)
    canvas.paint(canvas.tube((0, -24, 790), (0, -18, 700), 9), -960.0)
    canvas.paint(canvas.ellipsoid((0, -54, 752), (24, 30, 16)), tissue.muscle)  # tongue


def paint_legs(canvas: Canvas, rng: np.random.Generator, tissue: Tissue, fat: float) -> None:
    """Paint both legs below the ischium: thighs, knees at -400 mm, lower legs to -760 mm."""
    height = canvas.axes[0]
    radius = np.interp(height, [-760, -620, -520, -420, -380, -200, -30, 20], [36, 44, 56, 52, 56, 72, 84, 60])
    spread = np.interp(height, [-760, -400, -30, 20], [70, 82, 92, 92]).astype(np.float32)[:, None, None]
    radius = radius.astype(np.float32)[:, None, None]
    end = np.maximum(height[:, None, None] - 15, 0)
    texture = canvas.smooth_field(rng, 16.0)
    septa = np.clip((np.abs(canvas.smooth_field(rng, 28.0)) - 0.05) * 9, -0.4, 1)
    muscle = tissue.fat + (tissue.muscle - tissue.fat) * septa
    for side in (-1, 1):
        leg = radius - np.hypot(canvas.x - side * spread, canvas.y * 0.95 - 4) - end
        canvas.paint(canvas.whole(leg + 0.6 * fat + 2), 25.0)
        canvas.paint(canvas.whole(leg + 0.6 * fat), tissue.fat + 6 * texture)
    for side in (-1, 1):
        leg = radius - np.hypot(canvas.x - side * spread, canvas.y * 0.95 - 4) - end
        knee = np.clip((np.abs(height + 400) - 30) / 40, 0, 1)[:, None, None]  # little muscle at the knee
        canvas.paint(canvas.whole(leg - 3), tissue.fat + (muscle - tissue.fat) * (0.25 + 0.75 * knee))
        _leg_bones(canvas, tissue, side)


def _leg_bones(canvas: Canvas, tissue: Tissue, side: int) -> None:
    hard, soft = tissue.cortex * 1.3, tissue.marrow
    shaft = canvas.tube((side * 122, 10, 40), (side * 86, -2, -350), 15, 13)
    canvas.bone(shaft, hard, -50.0, 5.5)
    for part in (-1, 1):
        canvas.bone(canvas.ellipsoid((side * 82 + part * 20, 4, -380), (21, 28, 26)), hard * 0.7, soft, 1.8)
        canvas.bone(canvas.ellipsoid((side * 81 + part * 17, 4, -424), (21, 24, 18)), hard * 0.7, soft, 1.8)
    canvas.bone(canvas.ellipsoid((side * 82, -42, -380), (19, 9, 21)), hard * 0.8, soft, 2.0)
    canvas.bone(canvas.tube((side * 80, -2, -425), (side * 68, 2, -760), 17, 11), hard, -40.0, 5.0)
    canvas.bone(canvas.tube((side * 110, 16, -430), (side * 86, 16, -760), 7.5, 6.5), hard, 60.0, 3.0)
    for start, end, width in (((62, 30, -20), (76, 40, -400), 5.0), ((76, 34, -400), (66, 26, -740), 3.5)):
        artery = [(side * x, y, z) for x, y, z in (start, end)]
        canvas.paint(canvas.tube(artery[0], artery[1], width), tissue.vessel)
