"""The upper abdomen of a generated patient: liver with its vessels and lesions, and the neighbours that resemble it."""

from __future__ import annotations

import numpy as np

from monai_ssl_transfer.data.phantoms.ct_anatomy import LIVER, TUMOUR, Trunk
from monai_ssl_transfer.data.phantoms.ct_canvas import Point, Solid


def paint_upper_abdomen(trunk: Trunk) -> None:
    """Paint kidneys, liver, spleen, stomach, pancreas and gallbladder over a trunk."""
    _stomach(trunk)
    _liver(trunk)  # its left lobe lies before the stomach
    _vessels(trunk)
    _kidneys(trunk)
    _spleen(trunk)
    _pancreas_and_gallbladder(trunk)


def _liver(trunk: Trunk) -> None:
    """Right and left lobe under the diaphragm, hollowed where kidney, spine and stomach press on them."""
    canvas, rng = trunk.canvas, trunk.rng
    x, y, z = canvas.x, canvas.y, canvas.z
    low = float(rng.choice([trunk.near(10), -28.0], p=[0.85, 0.15]))  # the second is a Riedel lobe
    length = trunk.vary(96, 0.08) - low / 2
    right = canvas.ellipsoid((-64, -6 + trunk.near(5), 378 + low), (trunk.vary(70), trunk.vary(84), length))
    reach = float(rng.choice([rng.uniform(0.6, 0.9), rng.uniform(0.9, 1.2)]))
    left = canvas.ellipsoid((-6 + 10 * reach, -52, 400 + trunk.near(5)), (66 * reach, trunk.vary(34), trunk.vary(40)))
    depth = np.full(canvas.frame.shape, -50.0, np.float32)
    for lobe in (right, left):
        depth[lobe.box] = np.maximum(depth[lobe.box], lobe.depth)
    hollow_y = 44 + trunk.near(6)
    hollow = 46 * (np.sqrt(((x - 18) / 46) ** 2 + ((y - hollow_y) / 52) ** 2 + ((z - 345) / 120) ** 2) - 1)
    kidney = 36 * (np.sqrt(((x + 54) / 36) ** 2 + ((y - 66) / 44) ** 2 + ((z - 325) / 78) ** 2) - 1)
    spine = 34 * (np.hypot(x / 32, (y - 52) / 40) - 1)
    below = 0.8 * (z - 300 - low + 0.75 * (x + 100) - 0.25 * (y + 60) * (x > -40))  # the oblique lower edge
    surface = np.minimum.reduce([depth, hollow, kidney, spine, below]) + 2.2 * trunk.texture
    parenchyma = trunk.tissue.liver + rng.uniform(1.5, 5) * trunk.texture + rng.uniform(1, 4) * trunk.fine
    canvas.paint(canvas.whole(surface), parenchyma, code=LIVER, limit=trunk.abdomen)
    fissure = canvas.ellipsoid((-4, -72, 372), (4, 26, 40), 0.15)
    canvas.paint(fissure, trunk.tissue.fat + 30)


def _vessels(trunk: Trunk) -> None:
    """Portal tree from the hilum and three hepatic veins to the vena cava; brighter than the liver, or just not."""
    canvas, rng, tissue = trunk.canvas, trunk.rng, trunk.tissue
    hilum = (-30.0, 2.0, 372.0)
    canvas.paint(canvas.tube((6, 10, 345), hilum, 8, 7), tissue.vessel)
    for start in ((-0.9, 0.1, 0.1), (-0.6, 0.4, 0.6), (-0.6, 0.3, -0.7), (0.5, -0.85, 0.4)):
        _branch(trunk, hilum, np.array(start), 6.0, rng.uniform(26, 38), 4, tissue.vessel)
    cava = (-23.0, 6.0, 445.0)
    vein = tissue.vessel - float(rng.choice([0.0, 40.0], p=[0.7, 0.3]))  # early phase: veins not yet opacified
    for start in ((-0.9, 0.0, -0.45), (-0.5, -0.7, -0.4), (0.35, -0.85, -0.35)):
        _branch(trunk, cava, np.array(start), 5.5, rng.uniform(32, 44), 3, vein)
    canvas.paint(canvas.tube((-22, 18, 330), (-24, 6, 462), 11, 13), tissue.vessel + 8)


def _branch(
    trunk: Trunk, start: Point, direction: np.ndarray, radius: float, length: float, levels: int, hu: float
) -> None:
    """One vessel segment inside the liver and, recursively, its two branches."""
    step = direction / np.linalg.norm(direction) * length
    end = (start[0] + float(step[0]), start[1] + float(step[1]), start[2] + float(step[2]))
    inside = trunk.canvas.tube(start, end, radius, radius * 0.8)
    trunk.canvas.paint(inside, hu, code=LIVER, only=(LIVER,))
    if levels:
        for _ in range(2):
            turned = step / length + trunk.rng.normal(0, 0.5, 3)
            _branch(trunk, end, turned, radius * trunk.rng.uniform(0.6, 0.8), length * 0.8, levels - 1, hu)


def _spleen(trunk: Trunk) -> None:
    canvas = trunk.canvas
    size = trunk.vary(1.0, 0.16)
    centre = (98.0, 30 + trunk.near(6), 398 + trunk.near(8))
    spleen = canvas.ellipsoid(centre, (27 * size, 48 * size, 50 * size), trunk.vary(0.45, 0.3), -0.15)
    hilum = 20 * (np.hypot((canvas.x - 62) / 24, (canvas.y - 8) / 30) - 1)
    parenchyma = trunk.tissue.spleen + 2 * trunk.texture + trunk.rng.uniform(0, 8) * trunk.fine
    canvas.paint(spleen, parenchyma, limit=np.minimum(trunk.abdomen, hilum))


def _stomach(trunk: Trunk) -> None:
    """Fundus, body and antrum with liquid, food or contrast medium, and gas above the liquid."""
    canvas, rng = trunk.canvas, trunk.rng
    full = trunk.vary(1.0, 0.15)
    fundus = canvas.ellipsoid((70, 4, 422), (36 * full, 42 * full, 34))
    body = canvas.ellipsoid((70, -26, 372), (30 * full, 32 * full, 56), -0.3)
    antrum = canvas.tube((58, -44, 340), (-8, -42, 336), 22 * full, 14)
    depth = np.full(canvas.frame.shape, -50.0, np.float32)
    for part in (fundus, body, antrum):
        depth[part.box] = np.maximum(depth[part.box], part.depth)
    canvas.paint(canvas.whole(depth), trunk.tissue.liver - rng.uniform(0, 35), limit=trunk.abdomen)
    inside = np.minimum(depth - rng.uniform(3, 5.5), trunk.abdomen - 4)
    content = rng.choice([rng.uniform(5, 40), rng.uniform(60, 130), rng.uniform(160, 300)], p=[0.5, 0.35, 0.15])
    canvas.paint(canvas.whole(inside), content + rng.uniform(2, 14) * trunk.fine)
    level = rng.uniform(-60, -15)
    canvas.paint(canvas.whole(np.minimum(inside, level - canvas.y)), -970.0)


def _kidneys(trunk: Trunk) -> None:
    canvas, tissue = trunk.canvas, trunk.tissue
    corticomedullary = trunk.rng.uniform(0, 70)
    for side, height in ((-1, 318.0), (1, 336.0)):
        size = trunk.vary(1.0, 0.08)
        centre = (side * 58.0, 40.0, height + trunk.near(6))
        canvas.paint(canvas.ellipsoid(centre, (36, 33, 66)), tissue.fat, limit=trunk.abdomen)
        kidney = canvas.ellipsoid(centre, (27 * size, 25 * size, 54 * size), side * 0.5, side * -0.12)
        canvas.paint(kidney, tissue.kidney + 3 * trunk.fine)
        medulla = Solid(kidney.box, kidney.depth - 6 + 2.5 * trunk.texture[kidney.box])
        canvas.paint(medulla, tissue.kidney - corticomedullary)
        sinus = canvas.ellipsoid((centre[0] - side * 12, centre[1] - 6, centre[2]), (13, 8, 24), side * 0.5)
        canvas.paint(sinus, tissue.fat + 25)
        canvas.paint(canvas.tube((centre[0] - side * 12, 36, centre[2]), (side * 6, 18, centre[2]), 4.5), tissue.vessel)
        psoas = canvas.tube((side * 24, 44, 330), (side * 46, 26, 150), 11, 20)
        canvas.paint(psoas, tissue.muscle + 2 * trunk.texture)


def _pancreas_and_gallbladder(trunk: Trunk) -> None:
    canvas, tissue, rng = trunk.canvas, trunk.tissue, trunk.rng
    lobulated = 2.5 * trunk.fine
    for start, end, first, last in (
        ((-22, -8, 330), (-2, -14, 348), 15, 11),
        ((-2, -14, 348), (36, -8, 366), 11, 10),
        ((36, -8, 366), (82, 20, 384), 10, 8),
    ):
        tube = canvas.tube(start, end, first, last)
        canvas.paint(Solid(tube.box, tube.depth + lobulated[tube.box]), tissue.pancreas + 6 * trunk.fine)
    canvas.paint(canvas.tube((-30, -12, 352), (-34, 8, 306), 12), rng.uniform(40, 100))  # duodenum
    if rng.random() < 0.85:
        place = (-50 + trunk.near(5), -38 + trunk.near(5), 332 + trunk.near(6))
        bladder = canvas.ellipsoid(place, (trunk.vary(15), trunk.vary(18), trunk.vary(30)), 0.4)
        canvas.paint(bladder, 70.0)
        canvas.paint(Solid(bladder.box, bladder.depth - 1.5), rng.uniform(0, 22))


def paint_tumours(trunk: Trunk, count: int) -> int:
    """Put hypodense lesions of any size into the liver that the volume shows.

    Args:
        trunk: a painted trunk.
        count: how many lesions.

    Returns:
        How many were painted: fewer when the volume shows no liver or the lesions fall on one another.
    """
    canvas, rng = trunk.canvas, trunk.rng
    smallest = max(4.5, 1.4 * max(canvas.frame.spacing[1:]))  # a lesion is seen in one slice at least
    painted = 0
    for _ in range(count):
        places = np.flatnonzero(canvas.organ == LIVER)
        if not len(places):
            break
        place = np.unravel_index(places[rng.integers(len(places))], canvas.organ.shape)
        centre = (float(canvas.x[place]), float(canvas.y[place]), float(canvas.z[place]))
        radius = float(np.exp(rng.uniform(np.log(smallest), np.log(max(32.0, 1.5 * smallest)))))
        _tumour(trunk, centre, radius)
        painted += 1
    return painted


def _tumour(trunk: Trunk, centre: Point, radius: float) -> None:
    """One lesion: lobulated, darker than the liver, with a rim or a necrotic core when it is large."""
    canvas, rng = trunk.canvas, trunk.rng
    solid = canvas.ellipsoid(centre, (radius * rng.uniform(0.8, 1.2), radius, radius * rng.uniform(0.8, 1.1)))
    depth = solid.depth + 0.14 * radius * trunk.texture[solid.box]
    darker = rng.uniform(22, 65)
    inside = (LIVER, TUMOUR)
    hu = trunk.tissue.liver - darker + 3 * trunk.fine
    if radius > 8 and rng.random() < 0.4:
        canvas.paint(Solid(solid.box, depth), trunk.tissue.liver + rng.uniform(5, 30), code=TUMOUR, only=inside)
        canvas.paint(Solid(solid.box, depth - 2.5), hu, code=TUMOUR, only=inside)
    else:
        canvas.paint(Solid(solid.box, depth), hu, code=TUMOUR, only=inside)
    if radius > 14 and rng.random() < 0.6:
        core = Solid(solid.box, depth - radius * rng.uniform(0.35, 0.6) + 0.1 * radius * trunk.fine[solid.box])
        canvas.paint(core, rng.uniform(10, 40), code=TUMOUR, only=inside)
