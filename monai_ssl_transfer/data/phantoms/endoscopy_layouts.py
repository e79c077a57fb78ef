"""Writes generated endoscopy in the layouts of Kvasir-SEG, CVC-ClinicDB, GIANA, HyperKvasir and C3VD."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from monai_ssl_transfer.data.phantoms import endoscopy_anatomy as anatomy
from monai_ssl_transfer.data.phantoms import endoscopy_lesions as lesions
from monai_ssl_transfer.data.phantoms.endoscopy_anatomy import Scene
from monai_ssl_transfer.data.phantoms.endoscopy_files import (
    Photograph,
    file_id,
    kvasir_id,
    polyp_boxes,
    random_stream,
    with_margin,
    write_depth,
    write_jpeg_mask,
    write_photograph,
)
from monai_ssl_transfer.data.phantoms.endoscopy_findings import FINDINGS, find_scene
from monai_ssl_transfer.data.phantoms.endoscopy_picture import Frame, draw_processor, photograph
from monai_ssl_transfer.data.phantoms.endoscopy_views import keep_in_view, scene_with_lesion, way

_TWICE = 6  # every so many polyps is photographed a second time
C3VD_VIDEOS = (
    "trans_t2_b",
    "cecum_t4_b",
    "trans_t4_a",
    "cecum_t2_c",
    "cecum_t1_a",
    "cecum_t1_b",
    "cecum_t2_a",
    "cecum_t2_b",
    "cecum_t3_a",
    "cecum_t4_a",
    "desc_t4_a",
    "sigmoid_t1_a",
    "sigmoid_t2_a",
    "sigmoid_t3_a",
    "sigmoid_t3_b",
    "trans_t1_a",
    "trans_t1_b",
    "trans_t2_a",
    "trans_t2_c",
    "trans_t3_a",
    "trans_t3_b",
    "trans_t4_b",
)


def write_kvasir_seg(folder: str | Path, frames: int, size: int = 256, seed: int = 0) -> Path:
    """Write Kvasir-SEG's layout: ``images``, ``masks`` (JPEG, one in twenty RGB) and ``kavsir_bboxes.json``.

    Sizes differ from picture to picture; the fourth picture and its mask are stored on their side with an EXIF
    orientation; every seventh picture shows the same polyp as the one before.

    Args:
        folder: where to write.
        frames: how many photographs.
        size: rows of the largest one.
        seed: everything follows from it.

    Returns:
        the folder.
    """
    return _write_segmented(Path(folder), frames, size, seed, "kavsir_bboxes.json", kvasir_id)


def write_cvc_clinicdb(folder: str | Path, sequences: int, frames: int, size: int = 288, seed: int = 0) -> Path:
    """Write CVC-ClinicDB's layout: ``Original/N.tif`` and ``Ground Truth/N.tif``, 4:3, grey edges in the masks.

    The numbers are those of the public data set's 29 sequences, of which the first ``frames`` frames are written; 29
    sequences of 25 frames are all of its 612 frames.

    Args:
        folder: where to write.
        sequences: how many of the 29.
        frames: at most so many frames of each.
        size: rows of a frame (288 in the original).
        seed: everything follows from it.

    Returns:
        the folder.
    """
    folder = Path(folder)
    for part in ("Original", "Ground Truth"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    columns = round(size * 4 / 3)
    described = files("monai_ssl_transfer.data.endoscopy") / "cvc_clinicdb_sequences.json"
    ranges = json.loads(described.read_text(encoding="utf-8"))["sequences"][:sequences]
    for number, (first, last) in enumerate(tqdm(ranges, desc="CVC-ClinicDB", unit="sequence")):
        rng = random_stream(seed, "cvc", number)
        scene = scene_with_lesion(lambda r: find_scene("polyps", r), rng, "cut", (0.015, 0.3))
        cameras = way(rng, scene, min(frames, last - first + 1), pace=0.25, sway=0.8, last=scene.view.position[2] + 4)
        processor = draw_processor(rng, "cut")
        for index, camera in enumerate(keep_in_view(scene, cameras, "cut")):
            frame = photograph(scene, camera, processor, rng, size, columns)
            Image.fromarray(frame.image).save(folder / "Original" / f"{first + index}.tif")
            _soft_mask(frame.mask).save(folder / "Ground Truth" / f"{first + index}.tif")
    return folder


def write_giana(folder: str | Path, lesions_count: int, normal: int, size: int = 256, seed: int = 0) -> Path:
    """Write GIANA 2017's angiodysplasia layout below ``data``: capsule pictures, and a JPEG mask of every lesion.

    ``train/angyodysplasia`` has ``images/X.jpg`` or ``X.png`` and ``masks/X_a.jpg``; ``train/normal`` has only
    ``images`` that hold something; ``test`` holds pictures of both kinds.

    Args:
        folder: where to write.
        lesions_count: pictures with angiodysplasia, two of each lesion.
        normal: pictures without.
        size: rows and columns (576 in the original).
        seed: everything follows from it.

    Returns:
        the folder.
    """
    data = Path(folder) / "data"
    train = data / "train"
    for place in ("angyodysplasia/images", "angyodysplasia/masks", "normal/images", "normal/masks"):
        (train / place).mkdir(parents=True, exist_ok=True)
    (data / "test").mkdir(exist_ok=True)
    sick = _capsule_pictures(random_stream(seed, "giana", "sick"), size, True)
    for index, frame in zip(tqdm(range(lesions_count), desc="GIANA", unit="picture"), sick, strict=False):
        name = f"{index:03d}"
        _capsule_file(train / "angyodysplasia/images", name, frame, index)
        write_jpeg_mask(train / "angyodysplasia/masks" / f"{name}_a.jpg", frame.mask)
    healthy = _capsule_pictures(random_stream(seed, "giana", "normal"), size, False)
    for index, frame in zip(range(normal), healthy, strict=False):
        _capsule_file(train / "normal/images", f"{index:03d}", frame, index)
    for index in range(max(lesions_count // 4, 2)):
        rng = random_stream(seed, "giana", "test", index)
        _capsule_file(data / "test", f"{index:03d}", next(_capsule_pictures(rng, size, index % 2 == 0)), index)
    return Path(folder)


def write_hyperkvasir(
    folder: str | Path,
    share: float = 0.015,
    least: int = 5,
    segmented: int = 24,
    unlabelled: int = 48,
    size: int = 256,
    seed: int = 0,
) -> Path:
    """Write HyperKvasir's layout: ``labeled-images``, ``segmented-images`` and ``unlabeled-images``.

    Args:
        folder: where to write.
        share: part of the public set's number of images of every class, so that the imbalance stays.
        least: images that even the rarest class gets.
        segmented: photographs with masks and boxes.
        unlabelled: photographs without labels.
        size: rows of the largest picture.
        seed: everything follows from it.

    Returns:
        the folder.
    """
    folder = Path(folder)
    rows = []
    for place, images in tqdm(FINDINGS.items(), desc="HyperKvasir", unit="class"):
        organ, category, name = place.split("/")
        for index in range(max(round(images * share), least)):
            rng = random_stream(seed, "hyperkvasir", name, index)
            key = file_id(rng)
            write_photograph(folder / "labeled-images" / place / f"{key}.jpg", _finding(name, rng, size).image, rng)
            rows.append((key, "Lower GI" if organ.startswith("lower") else "Upper GI", name, category))
    _write_labels(folder / "labeled-images" / "image-labels.csv", rows)
    _write_segmented(folder / "segmented-images", segmented, size, seed + 1, "bounding-boxes.json", file_id)
    for index in range(unlabelled):
        rng = random_stream(seed, "hyperkvasir", "unlabelled", index)
        key, name = file_id(rng), list(FINDINGS)[int(rng.integers(len(FINDINGS)))].rsplit("/", 1)[-1]
        write_photograph(folder / "unlabeled-images" / "images" / f"{key}.jpg", _finding(name, rng, size).image, rng)
    return folder


def write_c3vd(folder: str | Path, videos: int, frames: int, size: int = 256, seed: int = 0) -> Path:
    """Write C3VD's layout: a folder per video with ``N_color.png``, ``NNNN_depth.tiff`` (0 to 100 mm) and ``pose.txt``.

    A line of ``pose.txt`` is the camera-to-world matrix column by column. The first four videos bear the names that
    SSL4GIE tests and validates on.

    Args:
        folder: where to write.
        videos: at most 22.
        frames: of each video.
        size: rows; 1080 in the original, which is 1350 wide.
        seed: everything follows from it.

    Returns:
        the folder.
    """
    folder = Path(folder)
    for number, name in enumerate(tqdm(C3VD_VIDEOS[:videos], desc="C3VD", unit="video")):
        rng = random_stream(seed, "c3vd", number)
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        patient = anatomy.draw_patient(rng)
        patient.vessels = 0.5
        make = anatomy.caecum if name.startswith("cecum") else anatomy.colon
        scene = make(rng, patient)
        scene.wall.finish()
        pace = 0.35 if name.startswith("cecum") else min(1.0, 40 / frames)
        cameras, processor = way(rng, scene, frames, pace, last=14.0), draw_processor(rng, "cut")
        for index, camera in enumerate(cameras):
            frame = photograph(scene, camera, processor, rng, size, round(1.25 * size), shake=0.05)
            Image.fromarray(frame.image).save(place / f"{index}_color.png")
            write_depth(place / f"{index:04d}_depth.tiff", frame.depth)
        poses = [",".join(f"{value:.6f}" for value in camera.pose().T.ravel()) for camera in cameras]
        (place / "pose.txt").write_text("\n".join(poses) + "\n", encoding="utf-8")
    return folder


def _write_segmented(
    folder: Path, frames: int, size: int, seed: int, boxes_file: str, name: Callable[[np.random.Generator], str]
) -> Path:
    """Photographs of polyps with JPEG masks and a file of boxes."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    boxes: dict[str, object] = {}
    pictures = _polyp_pictures(seed, size)
    for index, (picture, rng) in zip(tqdm(range(frames), desc=folder.name, unit="picture"), pictures, strict=False):
        key, turned = name(rng), index == 3
        write_photograph(folder / "images" / f"{key}.jpg", picture.image, rng, turned)
        write_jpeg_mask(folder / "masks" / f"{key}.jpg", picture.mask, rgb=index % 20 == 1, turned=turned)
        boxes[key] = polyp_boxes(picture.mask)
    (folder / boxes_file).write_text(json.dumps(boxes, indent=1), encoding="utf-8")
    return folder


def _polyp_pictures(seed: int, size: int) -> Iterator[tuple[Photograph, np.random.Generator]]:
    """Endless photographs of polyps, some of them of the same polyp as the one before."""
    index = 0
    while True:
        rng = random_stream(seed, "polyp", index)
        scene = scene_with_lesion(lambda r: find_scene("polyps", r), rng, "octagon")
        processor = draw_processor(rng, "octagon")
        rows = round(size * rng.uniform(0.86, 1.0))
        columns = round(rows * rng.uniform(0.98, 1.08))
        twice = index % _TWICE == _TWICE - 1
        # the second time a moment later, near enough for the search for the same scene
        views = way(rng, scene, 3, pace=0.05, sway=0.03)[::2] if twice else way(rng, scene, 1, pace=0.0)
        margin = int(rng.integers(1 << 31))
        for camera in keep_in_view(scene, views, "octagon"):
            frame = photograph(scene, camera, processor, rng, rows, columns)
            yield with_margin(frame, np.random.default_rng(margin)), rng
        index += 1


def _finding(name: str, rng: np.random.Generator, size: int) -> Photograph:
    """A photograph of a finding; polyps and dyed lesions are in view."""
    if name in ("polyps", "dyed-lifted-polyps", "dyed-resection-margins"):
        scene = scene_with_lesion(lambda r: find_scene(name, r), rng, "octagon", (0.012, 0.4))
    else:
        scene = find_scene(name, rng)
    rows = round(size * rng.uniform(0.86, 1.0))
    frame = photograph(
        scene, scene.view, draw_processor(rng, "octagon"), rng, rows, round(rows * rng.uniform(0.98, 1.08))
    )
    return with_margin(frame, rng)


def _capsule_scene(rng: np.random.Generator, sick: bool) -> Scene:
    """Small bowel with the red spots, bile and residue that occur with and without angiodysplasia."""
    scene = anatomy.small_bowel(rng, anatomy.draw_patient(rng))
    if rng.random() < 0.6:
        lesions.erythema(rng, scene, int(rng.integers(1, 5)), float(rng.uniform(0.2, 1.0)))
    if rng.random() < 0.4:
        lesions.residue(rng, scene, float(rng.uniform(0.05, 0.4)))
    if sick:
        for _ in range(1 + int(rng.random() < 0.2)):
            place = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(7, 22))
            lesions.angiodysplasia(rng, scene, *place, float(rng.uniform(1.6, 4.5)))
    scene.wall.finish()
    return scene


def _capsule_pictures(rng: np.random.Generator, size: int, sick: bool) -> Iterator[Frame]:
    """Endless pictures of a capsule, two of each patient."""
    while True:
        if sick:
            scene = scene_with_lesion(lambda r: _capsule_scene(r, True), rng, "round", (0.006, 0.3))
        else:
            scene = _capsule_scene(rng, False)
        cameras, processor = way(rng, scene, 2, pace=0.5, sway=1.0), draw_processor(rng, "round")
        for camera in keep_in_view(scene, cameras, "round") if sick else cameras:
            yield photograph(scene, camera, processor, rng, size, size, shake=0.1)


def _capsule_file(folder: Path, name: str, frame: Frame, index: int) -> None:
    """Even pictures as PNG, odd ones as JPEG: the public set has been seen with both."""
    Image.fromarray(frame.image).save(folder / f"{name}{'.jpg' if index % 2 else '.png'}", quality=92)


def _soft_mask(mask: np.ndarray) -> Image.Image:
    """A mask with grey edges, as a mask has that was once scaled."""
    image = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR).resize(
        image.size, Image.Resampling.BILINEAR
    )


def _write_labels(path: Path, rows: list[tuple[str, str, str, str]]) -> None:
    """The public set's list of images: its first column is called a video file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("Video file", "Organ", "Finding", "Classification"))
        writer.writerows(rows)
