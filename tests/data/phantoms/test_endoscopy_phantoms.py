from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from monai_ssl_transfer import cli
from monai_ssl_transfer.data.endoscopy.boxes import polyp_box_cases
from monai_ssl_transfer.data.endoscopy.c3vd import depth_cases
from monai_ssl_transfer.data.endoscopy.frames import read_frame, read_mask
from monai_ssl_transfer.data.endoscopy.giana import angiodysplasia_cases
from monai_ssl_transfer.data.endoscopy.hyperkvasir import class_names, finding_cases
from monai_ssl_transfer.data.endoscopy.near_duplicates import difference_hash, hamming
from monai_ssl_transfer.data.endoscopy.polyps import polyp_cases
from monai_ssl_transfer.data.phantoms import endoscopy_dataset
from monai_ssl_transfer.data.phantoms.endoscopy_anatomy import Patient, Scene, colon, draw_patient
from monai_ssl_transfer.data.phantoms.endoscopy_camera import Camera, look
from monai_ssl_transfer.data.phantoms.endoscopy_dataset import write_endoscopy_phantoms
from monai_ssl_transfer.data.phantoms.endoscopy_files import random_stream
from monai_ssl_transfer.data.phantoms.endoscopy_findings import FINDINGS, find_scene
from monai_ssl_transfer.data.phantoms.endoscopy_layouts import (
    write_c3vd,
    write_cvc_clinicdb,
    write_giana,
    write_hyperkvasir,
    write_kvasir_seg,
)
from monai_ssl_transfer.data.phantoms.endoscopy_picture import Processor, draw_processor, photograph
from monai_ssl_transfer.data.phantoms.endoscopy_rays import follow
from monai_ssl_transfer.data.phantoms.endoscopy_shading import Light
from monai_ssl_transfer.data.phantoms.endoscopy_solids import Solid
from monai_ssl_transfer.data.phantoms.endoscopy_videos import video_frames, write_unlabelled
from monai_ssl_transfer.data.phantoms.endoscopy_views import scene_with_lesion
from monai_ssl_transfer.data.phantoms.endoscopy_wall import ROWS, Wall
from monai_ssl_transfer.errors import DataError

SIDE = 96
PLAIN = Processor((1.0, 1.0, 1.0), 1.0, 0.0, 0.0, 0.0, 0.3, "none")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest data set of all layouts."""
    folder = tmp_path_factory.mktemp("endoscopy") / "phantoms"
    return write_endoscopy_phantoms(folder, videos=1, frames_per_video=3, size=48, seed=3, rarest=1)


@pytest.fixture(scope="module")
def polyps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kvasir_seg(tmp_path_factory.mktemp("polyps") / "Kvasir-SEG", 10, SIDE, seed=1)


def straight_tube(radius: float) -> Wall:
    """A smooth cylinder around the z axis."""
    step = 2 * np.pi * radius / ROWS
    shape = (ROWS, int(150 / step))
    flat = np.zeros((*shape, 2), np.float32)
    centre = np.zeros((shape[1], 2), np.float32)
    colour, surface = np.full((3, *shape), 0.4, np.float32), np.full(shape, radius, np.float32)
    return Wall(-10.0, step, surface, colour, np.zeros(shape, np.float32), flat, centre, radius).finish()


def straight_camera(field_of_view: float = 100.0) -> Camera:
    return look(np.zeros(3), np.array([0.0, 0.0, 10.0]), field_of_view=field_of_view)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("radius", [8.0, 20.0, 33.0])
def test_rays_meet_a_cylinder_where_geometry_says(radius: float) -> None:
    camera = straight_camera()
    rays, _ = camera.rays(40, 40)
    hits, forward = follow(straight_tube(radius), [], camera, 40, 40, np.ones((40, 40), bool))
    expected = radius / np.hypot(rays[0], rays[1])
    near = expected < 100
    assert near.mean() > 0.5
    np.testing.assert_allclose(hits.away[near], expected[near], rtol=0.02)
    np.testing.assert_allclose(hits.normal[2, near], 0, atol=0.02)
    np.testing.assert_allclose(forward, rays[2], atol=1e-6)


def test_rays_meet_a_ball_where_geometry_says() -> None:
    centre, radius = np.array([2.0, -1.0, 18.0]), 4.0
    ball = Solid(centre, np.eye(3), np.full(3, radius), (0.5, 0.2, 0.2), blend=0.2)
    camera = straight_camera()
    rays, _ = camera.rays(64, 64)
    hits, _ = follow(straight_tube(20), [ball], camera, 64, 64, np.ones((64, 64), bool))
    along = centre @ rays
    inside = radius**2 - (centre @ centre - along**2)
    expected = inside > 0
    assert (expected != (hits.solid == 0)).mean() < 0.005
    sure = inside > 1
    np.testing.assert_allclose(hits.away[sure], (along - np.sqrt(np.maximum(inside, 0)))[sure], atol=0.12)
    outwards = (hits.point[:, sure] - centre[:, None]) / radius
    assert (hits.normal[:, sure] * outwards).sum(0).min() > 0.98


@pytest.mark.parametrize("seed", range(3))
def test_what_is_further_away_is_darker(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = colon(rng, draw_patient(rng))
    scene.wall.finish()
    frame = photograph(scene, scene.view, draw_processor(rng, "octagon"), rng, SIDE, SIDE)
    grey, depth = frame.image.mean(2)[frame.seen], frame.depth[frame.seen]
    near, far = np.quantile(depth, (0.25, 0.85))
    assert grey[depth < near].mean() > 1.4 * grey[depth > far].mean()
    assert np.corrcoef(grey, np.log(depth))[0, 1] < -0.5
    assert (frame.depth[~frame.seen] == 0).all()
    assert (frame.image[~frame.seen] == 0).all()
    assert depth.min() > 0.5
    assert depth.max() <= 100


@pytest.mark.parametrize("seed", range(3))
def test_the_mask_is_where_the_polyp_is(seed: int) -> None:
    """Taken away, it uncovers what lies behind; nothing changes elsewhere but where it melts into the wall."""
    rng = np.random.default_rng(seed)
    scene = scene_with_lesion(lambda source: find_scene("polyps", source), rng, "none", (0.02, 0.4))
    bodies = [solid for solid in scene.solids if not solid.lesion]
    with_it = photograph(scene, scene.view, PLAIN, np.random.default_rng(0), SIDE, SIDE, shake=0)
    without = Scene(scene.wall, scene.patient, scene.view, bodies)
    bare = photograph(without, scene.view, PLAIN, np.random.default_rng(0), SIDE, SIDE, shake=0)
    nearer = bare.depth - with_it.depth
    assert with_it.mask.mean() > 0.01
    assert not bare.mask.any()
    assert (nearer[with_it.mask] > -0.1).all()
    assert np.median(nearer[with_it.mask]) > 0.3
    around = sum(solid.blend for solid in scene.solids if solid.lesion) + 0.2
    assert nearer[~with_it.mask].max() < around
    assert (np.abs(nearer[~with_it.mask]) < 0.05).mean() > 0.8


def test_no_colour_threshold_finds_the_polyps() -> None:
    """Polyps have the colours of mucosa: the best threshold, chosen per picture with the truth, stays far from it."""
    scores = []
    for seed in range(8):
        rng = np.random.default_rng(100 + seed)
        scene = scene_with_lesion(lambda source: find_scene("polyps", source), rng, "octagon")
        frame = photograph(scene, scene.view, draw_processor(rng, "octagon"), rng, SIDE, SIDE)
        red, green, blue = (frame.image[..., k].astype(float) for k in range(3))
        best = 0.0
        for value in (red, green, blue, red - green, red / (green + 1), green / (blue + 1)):
            for low in np.quantile(value[frame.seen], np.linspace(0.05, 0.95, 13)):
                for guess in ((value > low) & frame.seen, (value < low) & frame.seen):
                    both = (guess & frame.mask).sum()
                    best = max(best, 2 * both / max(guess.sum() + frame.mask.sum(), 1))
        scores.append(best)
    assert np.mean(scores) < 0.5


def test_frames_of_a_video_look_alike_and_videos_differ() -> None:
    videos = [video_frames(random_stream(5, "video", number), number, 4, SIDE) for number in range(4)]
    hashes = [[difference_hash(frame) for frame in video] for video in videos]
    following = [hamming(a, b) for video in hashes for a, b in pairwise(video)]
    strangers = [hamming(a, b) for n, one in enumerate(hashes) for other in hashes[n + 1 :] for a in one for b in other]
    assert np.median(following) < 0.6 * np.median(strangers)
    assert min(strangers) > 32
    assert min(following) > 0
    looks = np.array([[frame.reshape(-1, 3).mean(0) for frame in video] for video in videos])
    assert looks.std(1).mean() < looks.mean(1).std(0).mean()


def test_the_seed_is_everything(made: Path, tmp_path: Path) -> None:
    """Every file again, byte for byte, also when fewer are asked for."""
    write_unlabelled(tmp_path / "unlabelled", tmp_path / "unlabelled_videos", 1, 3, 48, 3)
    write_kvasir_seg(tmp_path / "kvasir-seg", 2, 48, 3)
    write_cvc_clinicdb(tmp_path / "cvc-clinicdb", 1, 3, 48, 3)
    write_giana(tmp_path / "giana", 2, 2, 48, 3)
    write_c3vd(tmp_path / "c3vd", 1, 3, 48, 3)
    for folder in sorted(tmp_path.iterdir()):
        again, before = digests(folder), digests(made / folder.name)
        again.pop("kavsir_bboxes.json", None)  # lists fewer pictures
        assert again
        assert again == {name: before[name] for name in again}, folder.name
    other = write_kvasir_seg(tmp_path / "other", 2, 48, 4)
    assert not set(digests(other / "images").values()) & set(digests(made / "kvasir-seg" / "images").values())


def test_every_layout_is_listed_by_its_reader(made: Path) -> None:
    assert len(list((made / "unlabelled").rglob("frame_*.jpg"))) == 3
    assert len(polyp_cases(made / "kvasir-seg")) == 4
    frames = polyp_cases(made / "cvc-clinicdb")
    assert len(frames) == 15
    assert len({case["group"] for case in frames}) == 5
    assert len(polyp_cases(made / "hyperkvasir" / "segmented-images")) == 2
    for folder in ("kvasir-seg", "hyperkvasir/segmented-images"):
        assert all(case["boxes"] for case in polyp_box_cases(made / folder, source="file"))
    capsule = angiodysplasia_cases(made / "giana")
    assert [case["class"] for case in capsule] == [1] * 10 + [0] * 10
    assert {Path(case["image"]).suffix for case in capsule} == {".jpg", ".png"}
    assert len(list((made / "hyperkvasir" / "unlabeled-images" / "images").glob("*.jpg"))) == 3
    depths = depth_cases(made / "c3vd")
    assert len(depths) == 15
    assert all(Path(case["depth"]).name.startswith(f"{index % 3:04d}") for index, case in enumerate(depths))


@pytest.mark.parametrize("task", ["landmarks", "findings"])
def test_hyperkvasir_has_every_class(made: Path, task: str) -> None:
    labels = [case["label"] for case in finding_cases(made / "hyperkvasir", task)]
    assert sorted(set(labels)) == list(range(len(class_names(task))))


def test_hyperkvasir_keeps_the_imbalance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("/ileum", "/cecum", "/pylorus")
    few = {place: count for place, count in FINDINGS.items() if place.endswith(names)}
    monkeypatch.setattr("monai_ssl_transfer.data.phantoms.endoscopy_layouts.FINDINGS", few)
    write_hyperkvasir(tmp_path, share=0.004, least=1, segmented=0, unlabelled=0, size=32)
    tree = tmp_path / "labeled-images"
    assert [len(list((tree / place).glob("*.jpg"))) for place in few] == [4, 1, 4]
    lines = (tree / "image-labels.csv").read_text().splitlines()
    assert lines[0] == "Video file,Organ,Finding,Classification"
    assert len(lines) == 10


def test_kvasir_like_files_have_the_traps_of_the_real_ones(polyps: Path) -> None:
    images = {path.stem: path for path in (polyps / "images").glob("*.jpg")}
    masks = {path.stem: path for path in (polyps / "masks").glob("*.jpg")}
    assert images.keys() == masks.keys()
    modes = [Image.open(path).mode for path in masks.values()]
    assert sorted(set(modes)) == ["L", "RGB"]
    turned = [stem for stem, path in images.items() if Image.open(path).getexif().get(0x0112) == 6]
    assert len(turned) == 1
    assert len({Image.open(path).size for path in images.values()}) > 3
    grey = np.concatenate([np.asarray(Image.open(path).convert("L")).ravel() for path in masks.values()])
    assert np.isin(grey, (0, 255)).mean() < 1
    assert ((grey < 60) | (grey > 195)).mean() > 0.97
    for stem, path in images.items():
        assert read_frame(path).shape[:2] == read_mask(masks[stem]).shape


def test_boxes_hold_the_upright_mask(polyps: Path) -> None:
    boxes = json.loads((polyps / "kavsir_bboxes.json").read_text())
    for stem, entry in boxes.items():
        mask = np.asarray(ImageOps.exif_transpose(Image.open(polyps / "masks" / f"{stem}.jpg")).convert("L")) > 127
        assert (entry["height"], entry["width"]) == mask.shape
        held = np.zeros_like(mask)
        for box in entry["bbox"]:
            assert box["label"] == "polyp"
            held[box["ymin"] : box["ymax"], box["xmin"] : box["xmax"]] = True
        assert mask[held].sum() > 0.97 * mask.sum()
        assert entry["bbox"]


def test_the_same_polyp_photographed_twice_is_one_group(polyps: Path) -> None:
    """The sixth polyp is photographed twice, all others once."""
    written = list(json.loads((polyps / "kavsir_bboxes.json").read_text()))
    groups = {case["name"]: case["group"] for case in polyp_cases(polyps)}
    assert groups[written[5]] == groups[written[6]]
    assert len(set(groups.values())) == len(written) - 1
    first, second = (read_frame(polyps / "images" / f"{name}.jpg").astype(int) for name in written[5:7])
    assert first.shape == second.shape and np.abs(first - second).mean() > 1  # two photographs, not a copy


def test_cvc_frames_bear_public_numbers_and_soft_masks(made: Path) -> None:
    numbers = sorted(int(path.stem) for path in (made / "cvc-clinicdb" / "Original").glob("*.tif"))
    assert numbers == [1, 2, 3, 26, 27, 28, 51, 52, 53, 68, 69, 70, 79, 80, 81]
    for number in numbers:
        image = Image.open(made / "cvc-clinicdb" / "Original" / f"{number}.tif")
        mask = np.asarray(Image.open(made / "cvc-clinicdb" / "Ground Truth" / f"{number}.tif"))
        assert image.size == (64, 48)
        assert mask.shape == (48, 64)
        assert mask.max() > 127
        assert ((mask > 0) & (mask < 255)).any()


def test_normal_capsule_pictures_have_no_mask_and_lesions_have(made: Path) -> None:
    train = made / "giana" / "data" / "train"
    assert not any((train / "normal" / "masks").iterdir())
    for image in (train / "angyodysplasia" / "images").iterdir():
        mask = read_mask(train / "angyodysplasia" / "masks" / f"{image.stem}_a.jpg")
        assert 0.002 < mask.mean() < 0.5


def test_c3vd_depth_is_sixteen_bits_over_100_mm(made: Path) -> None:
    case = depth_cases(made / "c3vd")[0]
    stored = np.asarray(Image.open(case["depth"]))
    assert stored.dtype == np.uint16
    assert stored.shape == read_frame(case["image"]).shape[:2] == (48, 60)
    free = stored > 0
    assert 0.8 < free.mean() < 1
    assert 2 < np.median(stored[free]) * 100 / 65535 < 60
    poses = np.loadtxt(Path(case["depth"]).parent / "pose.txt", delimiter=",").reshape(-1, 4, 4).transpose(0, 2, 1)
    assert len(poses) == 3
    turn = poses[:, :3, :3]
    np.testing.assert_allclose(turn @ turn.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (3, 3, 3)), atol=1e-5)
    np.testing.assert_allclose(poses[:, 3], [[0, 0, 0, 1]] * 3)


def test_the_mp4_shows_the_frames(made: Path) -> None:
    with av.open(str(made / "unlabelled_videos" / "video-0000.mp4")) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    kept = [read_frame(path) for path in sorted((made / "unlabelled" / "video-0000").iterdir())]
    assert len(shown) == len(kept) == 3
    for one, other in zip(shown, kept, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 8


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(DataError, match="colon-of-a-whale"):
        find_scene("colon-of-a-whale", np.random.default_rng(0))


def test_a_lesion_that_never_shows_is_an_error() -> None:
    scene = Scene(straight_tube(20), Patient((0.7, 0.25, 0.17), Light(), 0.5, 0.02), straight_camera())

    with pytest.raises(DataError, match="lesion"):
        scene_with_lesion(lambda rng: scene, np.random.default_rng(0), "octagon")


def test_foreign_files_and_empty_orders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="other files"):
        write_endoscopy_phantoms(tmp_path, videos=1)
    for order in ({"videos": 0}, {"frames_per_video": 0}, {"size": 8}):
        with pytest.raises(DataError, match="at least one video"):
            write_endoscopy_phantoms(tmp_path / "new", **order)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    orders = []

    def write(out: Path, videos: int, frames: int, *, size: int, seed: int) -> Path:
        orders.append((videos, frames, size, seed))
        out.mkdir()
        (out / "README.txt").write_text("as ordered\n")
        return out

    monkeypatch.setattr(endoscopy_dataset, "write_endoscopy_phantoms", write)
    words = ["phantom", "endoscopy", "--out", str(tmp_path / "x"), "--videos", "5", "--frames", "7", "--seed", "9"]
    assert cli.main(words) == 0
    assert orders == [(5, 7, 256, 9)]
    assert "as ordered" in capsys.readouterr().out
