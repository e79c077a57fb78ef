"""Hollow organs of the generated endoscopy: colon, caecum, ileum, rectum, stomach, oesophagus, small bowel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from monai_ssl_transfer.data.phantoms.endoscopy_camera import Camera, look
from monai_ssl_transfer.data.phantoms.endoscopy_noise import noise, vessels
from monai_ssl_transfer.data.phantoms.endoscopy_shading import Light
from monai_ssl_transfer.data.phantoms.endoscopy_solids import Solid
from monai_ssl_transfer.data.phantoms.endoscopy_wall import Colour, Wall, blank_wall

START = -12.0  # z in mm where every wall begins; the camera's way begins at 0


@dataclass
class Patient:
    """What all pictures of one patient have in common.

    Args:
        mucosa: linear RGB albedo.
        light: lamp and processor of this examination.
        vessels: density of the visible vessels.
        grain: mm of fine relief.
    """

    mucosa: Colour
    light: Light
    vessels: float
    grain: float


@dataclass
class Scene:
    """An organ with what lies in it.

    Args:
        wall: its surface.
        patient: whose it is.
        view: camera of a single picture; moved by whoever needs several.
        solids: bodies in it.
    """

    wall: Wall
    patient: Patient
    view: Camera
    solids: list[Solid] = field(default_factory=list)


def draw_patient(rng: np.random.Generator) -> Patient:
    """A patient's mucosa and the endoscope that looks at it."""
    red, warm, pale = rng.normal(0, 1, 3)
    mucosa = (
        float(np.clip(0.70 + 0.04 * pale, 0.55, 0.85)),
        float(np.clip(0.250 + 0.018 * warm - 0.022 * red + 0.035 * pale, 0.15, 0.36)),
        float(np.clip(0.165 - 0.012 * warm - 0.018 * red + 0.03 * pale, 0.09, 0.26)),
    )
    side = rng.uniform(1.8, 3.2)
    light = Light(
        reach=float(rng.uniform(9, 15)),
        ambient=float(rng.uniform(0.08, 0.2)),
        exposure=float(rng.uniform(0.5, 0.66)),
        gloss=float(rng.uniform(0.7, 1.2)),
        wetness=float(rng.uniform(0.6, 1.2)),
        lamps=((-side, float(rng.uniform(-1, 1))), (side, float(rng.uniform(-1, 1)))),
    )
    return Patient(mucosa, light, float(rng.uniform(0.4, 1.3)), float(rng.uniform(0.015, 0.05)))


def colon(rng: np.random.Generator, patient: Patient, length: float = 110.0, folds: float = 1.0) -> Scene:
    """Colon: a bent tube with semilunar folds.

    Args:
        rng: source of the shape.
        patient: whose colon.
        length: in mm that the camera can see along.
        folds: height of the folds; 0 is the lead pipe of chronic colitis.
    """
    wall = _tube(rng, patient, length, float(rng.uniform(17, 26)))
    haustra(wall, rng, float(rng.uniform(13, 24)), folds * float(rng.uniform(0.25, 0.42)))
    bulges(wall, rng, int(rng.integers(0, 7)))
    return Scene(wall, patient, _view(rng, wall))


def caecum(rng: np.random.Generator, patient: Patient) -> Scene:
    """Caecum: the blind end, three folds that meet like a crow's foot, the appendix's mouth, and the ileal valve."""
    wall = _tube(rng, patient, 75, float(rng.uniform(22, 29)))
    end = float(rng.uniform(34, 50))
    dome(wall, end, depth=float(rng.uniform(12, 20)), hole=float(rng.uniform(0.9, 1.8)))
    turn, spread = rng.uniform(0, 2 * np.pi), wall.z[None] - (end - 9)
    crow = np.maximum(np.cos(3 * (wall.angle - turn) + 0.4 * noise(rng, 100, wall.columns)), 0) ** 5
    wall.raise_surface((5.0 * crow * np.exp(-((spread / 8) ** 2))).astype(np.float32))
    haustra(wall, rng, 22.0, 0.22, last=end - 20)
    valve = rng.uniform(0, 2 * np.pi)
    around, along = wall.distance(valve, end - rng.uniform(15, 20))
    lips = np.exp(-((around / 9) ** 2)) * (np.exp(-(((along - 3) / 2.6) ** 2)) + np.exp(-(((along + 3) / 2.6) ** 2)))
    wall.raise_surface((6.0 * lips).astype(np.float32))
    wall.tint((0.72, 0.36, 0.18), (0.35 * np.clip(lips, 0, 1)).astype(np.float32))
    return Scene(wall, patient, _view(rng, wall, aim=end - 6, sway=0.35))


def ileum(rng: np.random.Generator, patient: Patient) -> Scene:
    """Terminal ileum: narrow, velvety with villi, lymphoid follicles instead of folds."""
    patient = replace(patient, grain=0.11, vessels=0.25)
    wall = _tube(rng, patient, 70, float(rng.uniform(9, 13)))
    wall.raise_surface((0.16 * noise(rng, 5, wall.columns) + 0.12 * noise(rng, 8, wall.columns)).astype(np.float32))
    follicles = np.maximum(noise(rng, 26, wall.columns) - 1.1, 0)
    wall.raise_surface(0.9 * follicles)
    wall.tint((0.78, 0.42, 0.22), np.clip(0.25 + 0.3 * follicles, 0, 0.7))
    haustra(wall, rng, 12.0, 0.12)
    return Scene(wall, patient, _view(rng, wall))


def rectum_retroflexed(rng: np.random.Generator, patient: Patient) -> Scene:
    """Rectum seen backwards: a wide pouch that narrows to the anal canal, from which the endoscope's shaft comes."""
    patient = replace(patient, vessels=patient.vessels + 0.5)
    wall = _tube(rng, patient, 75, float(rng.uniform(20, 27)))
    end = float(rng.uniform(32, 46))
    dome(wall, end, depth=float(rng.uniform(14, 20)), hole=0.5)
    cuff = np.clip((wall.z - (end - 5)) / 4, 0, 1)[None] * np.ones_like(wall.radius)
    wall.tint((0.62, 0.34, 0.27), 0.5 * cuff)  # squamous lining of the anal canal is paler
    columns = np.maximum(np.cos(rng.integers(7, 11) * wall.angle), 0) ** 2
    wall.raise_surface((1.4 * columns * np.exp(-(((wall.z[None] - end + 8) / 4) ** 2))).astype(np.float32))
    return _with_shaft(rng, wall, patient, end, thickness=rng.uniform(4.6, 5.6))


def stomach_retroflexed(rng: np.random.Generator, patient: Patient) -> Scene:
    """Fundus and cardia seen backwards: a large cavity with long folds, the shaft entering through the cardia."""
    patient = _gastric(patient, rng)
    wall = _tube(rng, patient, 120, float(rng.uniform(31, 40)), wander=0.3)
    end = float(rng.uniform(52, 72))
    dome(wall, end, depth=float(rng.uniform(26, 36)), hole=0.5)
    rugae(wall, rng, count=int(rng.integers(9, 15)), height=float(rng.uniform(1.5, 4.0)))
    return _with_shaft(rng, wall, patient, end, thickness=rng.uniform(4.6, 5.6))


def pylorus(rng: np.random.Generator, patient: Patient) -> Scene:
    """Antrum: smooth walls that run up to the round, dark opening of the pylorus."""
    patient = _gastric(patient, rng)
    wall = _tube(rng, patient, 100, float(rng.uniform(22, 31)), wander=0.3)
    end = float(rng.uniform(34, 58))
    dome(wall, end, depth=float(rng.uniform(16, 26)), hole=float(rng.uniform(2.2, 4.4)))
    spokes = np.maximum(np.cos(rng.integers(4, 7) * wall.angle + 0.8 * noise(rng, 100, wall.columns)), 0)
    wall.raise_surface((rng.uniform(0.3, 1.6) * spokes * np.exp(-(((wall.z[None] - end + 6) / 7) ** 2))).astype("f4"))
    ring = np.exp(-(((wall.z[None] - end + 2.5) / 2.0) ** 2)) * np.ones_like(wall.radius)
    wall.tint((0.72, 0.36, 0.25), 0.3 * ring)
    return Scene(wall, patient, _view(rng, wall, aim=end, sway=0.3))


def oesophagus(rng: np.random.Generator, patient: Patient) -> tuple[Scene, float]:
    """Lower oesophagus: pearly and smooth, closing like a star towards the cardia. The z of its end comes with it."""
    pearly = tuple(0.45 * own + 0.55 * pale for own, pale in zip(patient.mucosa, (0.7, 0.4, 0.31), strict=True))
    patient = replace(patient, mucosa=pearly, vessels=0.5, grain=0.01)  # type: ignore[arg-type]
    wall = _tube(rng, patient, 85, float(rng.uniform(10, 14)), wander=0.5)
    end = float(rng.uniform(27, 40))
    closing = np.clip((wall.z - (end - 18)) / 20, 0, 1)[None]
    petals = int(rng.integers(4, 7))
    star = 0.5 + 0.5 * np.cos(petals * wall.angle + rng.uniform(0, 6) + 0.5 * noise(rng, 200, wall.columns))
    wall.radius *= (1 - 0.72 * closing - 0.2 * closing * star).astype(np.float32)
    folds = 0.5 * np.maximum(np.cos(petals * wall.angle + 1.0), 0) * (wall.z[None] > START)
    wall.raise_surface(folds.astype(np.float32))
    return Scene(wall, patient, _view(rng, wall, aim=end - 8, sway=0.3)), end


def small_bowel(rng: np.random.Generator, patient: Patient) -> Scene:
    """Small bowel as a capsule sees it: close, villous, with thin circular folds, tinted by bile."""
    ring = ((-3.0, -3.0), (3.0, -3.0), (3.0, 3.0), (-3.0, 3.0))
    light = replace(patient.light, reach=11.0, gloss=0.25, ambient=0.2, lamps=ring)
    patient = replace(patient, light=light, grain=0.05, vessels=0.35)
    wall = _tube(rng, patient, 80, float(rng.uniform(10, 14)))
    haustra(wall, rng, float(rng.uniform(6, 11)), float(rng.uniform(0.15, 0.4)), width=1.3)
    wall.raise_surface((0.09 * noise(rng, 8, wall.columns) + 0.12 * noise(rng, 14, wall.columns)).astype(np.float32))
    wall.tint((0.74, 0.42, 0.16), np.full_like(wall.radius, rng.uniform(0.15, 0.7)))
    return Scene(wall, patient, _view(rng, wall, sway=1.2, width=140.0))


def haustra(
    wall: Wall, rng: np.random.Generator, spacing: float, height: float, width: float = 2.6, last: float = np.inf
) -> None:
    """Raise semilunar folds: each spans a part of the circumference, in three rows as between the taeniae.

    Args:
        wall: to change.
        rng: places and sizes.
        spacing: mean distance in mm.
        height: share of the radius.
        width: half width of a crest in mm.
        last: z in mm beyond which there are none.
    """
    turn = rng.uniform(0, 2 * np.pi)
    ripple = 1.6 * noise(rng, 100, wall.columns)
    for index, middle in enumerate(np.arange(wall.start + spacing / 2, min(wall.z[-1], last), spacing)):
        place = middle + rng.normal(0, 0.12 * spacing)
        if abs(place) < 5:  # the camera is here
            continue
        first, past = (int(np.clip((place + k * width - wall.start) / wall.step, 0, wall.columns)) for k in (-5, 5))
        around = np.zeros((len(wall.angle), 1), np.float32)
        for lobe in range(int(rng.integers(1, 4))):
            towards = turn + 2 * np.pi / 3 * (index + lobe) + rng.normal(0, 0.25)
            reach = np.clip((np.cos(wall.angle - towards) - 0.05) / 0.95, 0, 1) ** rng.uniform(0.5, 0.9)
            around = np.maximum(around, np.float32(rng.uniform(0.6, 1.1)) * reach)
        tilt = rng.normal(0, 1.5) * np.cos(wall.angle - turn)
        away = (wall.z[None, first:past] - np.float32(place) - tilt - ripple[:, first:past]) / np.float32(width)
        size = np.float32(height * wall.width)
        crest = size * around * np.exp(-(np.abs(away) ** 1.7))
        part = wall.radius[:, first:past]
        np.maximum(part - crest, 2.0, out=part)


def bulges(wall: Wall, rng: np.random.Generator, count: int) -> None:
    """Raise low mounds of normal mucosa, which are no polyps although they look a little like flat ones."""
    for _ in range(count):
        around, along = wall.distance(float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(4, 70)))
        wide, long = rng.uniform(3, 9, 2)
        wall.raise_surface(np.float32(rng.uniform(0.6, 3.0)) * np.exp(-((around / wide) ** 2) - (along / long) ** 2))


def rugae(wall: Wall, rng: np.random.Generator, count: int, height: float) -> None:
    """Raise long gastric folds that run along the organ and meander, ``height`` in mm."""
    phase = count * wall.angle + 1.6 * noise(rng, 200, wall.columns) + 0.9 * noise(rng, 100, wall.columns)
    size = height * (0.7 + 0.3 * noise(rng, 200, wall.columns))
    wall.raise_surface((size * np.maximum(np.cos(phase), -0.2)).astype(np.float32))


def dome(wall: Wall, end: float, depth: float, hole: float) -> None:
    """Close the tube with a dome that ends at z = ``end`` mm, leaving a channel of radius ``hole`` mm."""
    inside = np.clip((wall.z - (end - depth)) / depth, 0, 1)
    wall.radius *= np.sqrt(1 - inside**2)[None].astype(np.float32)
    np.maximum(wall.radius, np.float32(hole), out=wall.radius)


def _tube(rng: np.random.Generator, patient: Patient, length: float, radius: float, wander: float = 1.0) -> Wall:
    wall = blank_wall(rng, START, length, radius, patient.mucosa)
    wall.centre *= np.float32(wander)
    wall.centre -= wall.centre[round(-START / wall.step)]
    wall.filter((0.72, 0.34, 0.38), 0.9 * vessels(rng, wall.columns, patient.vessels))
    deep = vessels(rng, wall.columns, 0.25 * patient.vessels, widest=7)
    wall.filter((0.8, 0.72, 0.85), deep)
    relief = patient.grain * noise(rng, 8, wall.columns) + 2.5 * patient.grain * noise(rng, 26, wall.columns)
    wall.radius -= relief + 0.25 * noise(rng, 50, wall.columns)
    return wall


def _gastric(patient: Patient, rng: np.random.Generator) -> Patient:
    """The stomach is wider, so the lamp is turned up; its mucosa is a little more orange."""
    red, green, blue = patient.mucosa
    light = replace(patient.light, reach=patient.light.reach * 1.7)
    return replace(patient, mucosa=(red, green * 1.05, blue * 0.92), light=light, vessels=float(rng.uniform(0.05, 0.3)))


def _view(
    rng: np.random.Generator, wall: Wall, aim: float = 30.0, sway: float = 0.8, width: float | None = None
) -> Camera:
    """A camera at z = 0 that looks roughly along the organ to z = ``aim`` mm, off its middle by ``sway`` radii."""
    size = wall.width
    position = np.array([*rng.normal(0, 0.16 * size, 2).clip(-0.3 * size, 0.3 * size), rng.uniform(-2, 2)])
    there = wall.centre[int(np.clip((aim - wall.start) / wall.step, 0, wall.columns - 1))]
    target = np.array([*(there + rng.normal(0, 0.45 * sway * size, 2)), max(aim, 12.0)])
    return look(position, target, float(rng.uniform(0, 2 * np.pi)), width or float(rng.uniform(95, 125)))


def _with_shaft(rng: np.random.Generator, wall: Wall, patient: Patient, end: float, thickness: float) -> Scene:
    """Look back at where the endoscope came in: its black shaft runs from there to beside the camera."""
    beside = rng.uniform(0, 2 * np.pi)
    gap = rng.uniform(thickness + 4, thickness + 8)
    near = np.array([gap * np.cos(beside), gap * np.sin(beside), -4.0])
    middle = wall.centre[int((end - wall.start) / wall.step)]
    far = np.array([*(middle + rng.normal(0, 1.0, 2)), end + 1])
    shaft = Solid(
        near, np.eye(3), np.full(3, float(thickness)), (0.012, 0.012, 0.014), root=far, stalk=float(thickness),
        blend=0.6, lesion=False,
    )  # fmt: skip
    view = _view(rng, wall, aim=end - 8, sway=0.5)
    away = view.position[:2] - near[:2]
    position = np.array([*(near[:2] + away / np.linalg.norm(away) * max(np.linalg.norm(away), thickness + 4)), 0.0])
    target = np.array([*(middle + rng.normal(0, 5, 2)), end - 8])
    view = look(position, target, float(rng.uniform(0, 2 * np.pi)), view.field_of_view)
    return Scene(wall, patient, view, [shaft])
