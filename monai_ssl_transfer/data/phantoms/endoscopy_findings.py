"""What a generated picture shows, by the class names of HyperKvasir: folders, counts, and a scene for each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from monai_ssl_transfer.data.phantoms import endoscopy_anatomy as anatomy
from monai_ssl_transfer.data.phantoms import endoscopy_lesions as lesions
from monai_ssl_transfer.data.phantoms.endoscopy_anatomy import Patient, Scene
from monai_ssl_transfer.errors import DataError

# folder of HyperKvasir's labelled tree -> images it holds (seed-systems.md, section 6)
FINDINGS: dict[str, int] = {
    "lower-gi-tract/anatomical-landmarks/cecum": 1009,
    "lower-gi-tract/anatomical-landmarks/ileum": 9,
    "lower-gi-tract/anatomical-landmarks/retroflex-rectum": 391,
    "lower-gi-tract/pathological-findings/hemorrhoids": 6,
    "lower-gi-tract/pathological-findings/polyps": 1028,
    "lower-gi-tract/pathological-findings/ulcerative-colitis-grade-0-1": 35,
    "lower-gi-tract/pathological-findings/ulcerative-colitis-grade-1": 201,
    "lower-gi-tract/pathological-findings/ulcerative-colitis-grade-1-2": 11,
    "lower-gi-tract/pathological-findings/ulcerative-colitis-grade-2": 443,
    "lower-gi-tract/pathological-findings/ulcerative-colitis-grade-2-3": 28,
    "lower-gi-tract/pathological-findings/ulcerative-colitis-grade-3": 133,
    "lower-gi-tract/quality-of-mucosal-views/bbps-0-1": 646,
    "lower-gi-tract/quality-of-mucosal-views/bbps-2-3": 1148,
    "lower-gi-tract/quality-of-mucosal-views/impacted-stool": 131,
    "lower-gi-tract/therapeutic-interventions/dyed-lifted-polyps": 1002,
    "lower-gi-tract/therapeutic-interventions/dyed-resection-margins": 989,
    "upper-gi-tract/anatomical-landmarks/pylorus": 999,
    "upper-gi-tract/anatomical-landmarks/retroflex-stomach": 764,
    "upper-gi-tract/anatomical-landmarks/z-line": 932,
    "upper-gi-tract/pathological-findings/barretts": 41,
    "upper-gi-tract/pathological-findings/barretts-short-segment": 53,
    "upper-gi-tract/pathological-findings/esophagitis-a": 403,
    "upper-gi-tract/pathological-findings/esophagitis-b-d": 260,
}
Maker = Callable[[np.random.Generator, Patient], Scene]


def find_scene(name: str, rng: np.random.Generator) -> Scene:
    """A scene of a new patient that shows a finding; its wall is finished.

    Args:
        name: class as HyperKvasir's folders name it, e.g. ``"z-line"``.
        rng: the patient and everything else.

    Raises:
        DataError: no such class.
    """
    if name not in _MAKERS:
        raise DataError(f"{name} is no class of HyperKvasir: choose one of {', '.join(sorted(_MAKERS))}.")
    scene = _MAKERS[name](rng, anatomy.draw_patient(rng))
    scene.wall.finish()
    return scene


def _polyps(rng: np.random.Generator, patient: Patient) -> Scene:
    scene = anatomy.colon(rng, patient)
    if rng.random() < 0.4:
        lesions.residue(rng, scene, float(rng.uniform(0.05, 0.3)))
    if rng.random() < 0.15:
        scene.solids.append(lesions.stool_ball(rng, scene))
    for _ in range(1 + int(rng.random() < 0.12)):
        lesions.add_polyp(rng, scene)
    return scene


def _colitis(low: float, high: float) -> Maker:
    def make(rng: np.random.Generator, patient: Patient) -> Scene:
        grade = float(rng.uniform(low, high))
        patient.vessels *= max(0.7 - 0.35 * grade, 0.05)  # the vessels disappear first
        scene = anatomy.colon(rng, patient, folds=max(1 - 0.3 * grade, 0.1))
        lesions.colitis(rng, scene, grade)
        return scene

    return make


def _cleanliness(low: float, high: float) -> Maker:
    def make(rng: np.random.Generator, patient: Patient) -> Scene:
        scene = anatomy.colon(rng, patient)
        amount = float(rng.uniform(low, high))
        lesions.residue(rng, scene, amount)
        if amount > 0.5:
            scene.solids += [lesions.stool_ball(rng, scene) for _ in range(int(rng.integers(0, 2 + int(2 * amount))))]
        return scene

    return make


def _dyed(resected: bool) -> Maker:
    def make(rng: np.random.Generator, patient: Patient) -> Scene:
        scene = anatomy.colon(rng, patient)
        lesions.dyed_cushion(rng, scene, resected)
        return scene

    return make


def _hemorrhoids(rng: np.random.Generator, patient: Patient) -> Scene:
    scene = anatomy.rectum_retroflexed(rng, patient)
    end = float(scene.wall.z[np.argmin(scene.wall.radius.mean(0))])
    lesions.cushions(rng, scene, end - 11)
    return scene


def _z_line(rng: np.random.Generator, patient: Patient) -> Scene:
    scene, end = anatomy.oesophagus(rng, patient)
    lesions.squamous_border(rng, scene, end)
    return scene


def _barrett(low: float, high: float, raised: float) -> Maker:
    def make(rng: np.random.Generator, patient: Patient) -> Scene:
        scene, end = anatomy.oesophagus(rng, patient)
        lengths = tuple(float(value) for value in rng.uniform(low, high, int(rng.integers(1, 4))))
        lesions.squamous_border(rng, scene, end, lengths, float(rng.uniform(0, raised)))
        return scene

    return make


def _oesophagitis(low: float, high: float, most: int) -> Maker:
    def make(rng: np.random.Generator, patient: Patient) -> Scene:
        scene, end = anatomy.oesophagus(rng, patient)
        border = lesions.squamous_border(rng, scene, end)
        count = int(rng.integers(max(most // 2, 1), most + 1))
        lesions.mucosal_breaks(rng, scene, border, tuple(float(value) for value in rng.uniform(low, high, count)))
        return scene

    return make


_MAKERS: dict[str, Maker] = {
    "cecum": anatomy.caecum,
    "ileum": anatomy.ileum,
    "retroflex-rectum": anatomy.rectum_retroflexed,
    "hemorrhoids": _hemorrhoids,
    "polyps": _polyps,
    "ulcerative-colitis-grade-0-1": _colitis(0.3, 0.8),
    "ulcerative-colitis-grade-1": _colitis(0.7, 1.3),
    "ulcerative-colitis-grade-1-2": _colitis(1.2, 1.8),
    "ulcerative-colitis-grade-2": _colitis(1.7, 2.3),
    "ulcerative-colitis-grade-2-3": _colitis(2.2, 2.8),
    "ulcerative-colitis-grade-3": _colitis(2.7, 3.2),
    "bbps-0-1": _cleanliness(0.6, 1.6),
    "bbps-2-3": _cleanliness(0.0, 0.25),
    "impacted-stool": _cleanliness(2.0, 3.0),
    "dyed-lifted-polyps": _dyed(False),
    "dyed-resection-margins": _dyed(True),
    "pylorus": anatomy.pylorus,
    "retroflex-stomach": anatomy.stomach_retroflexed,
    "z-line": _z_line,
    "barretts": _barrett(8, 14, 6),
    "barretts-short-segment": _barrett(3.5, 7, 1),
    "esophagitis-a": _oesophagitis(2.5, 5, 3),
    "esophagitis-b-d": _oesophagitis(6, 14, 6),
}
