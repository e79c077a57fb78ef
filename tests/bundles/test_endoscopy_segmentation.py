"""Polyps and angiodysplasia from training to masks, on tiny photographs in the layouts of Kvasir-SEG and GIANA."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image, ImageOps

from monai_ssl_transfer.data.endoscopy.frames import read_mask
from monai_ssl_transfer.errors import DataError, user_error_of

ROOT = Path(__file__).resolve().parents[2]
POLYPS, ANGIODYSPLASIA = "endoscopy_polyp_segmentation", "endoscopy_angiodysplasia_segmentation"
SIZES = ((40, 56), (61, 47), (48, 48))


@pytest.fixture(autouse=True)
def strict_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")
    monkeypatch.chdir(ROOT)


def workflow(bundle: str, kind: str, *overlays: str, **override: Any) -> ConfigWorkflow:
    names = {"train": ["train"], "evaluate": ["train", "evaluate"], "inference": ["inference"]}[kind]
    files = [str(ROOT / "bundles" / bundle / "configs" / f"{name}.json") for name in names]
    files += [str(ROOT / "configs" / one) for one in ("networks/unet_resnet18.json", *overlays)]
    tiny = {"num_workers": 0, "device": torch.device("cpu"), "image_size": 64, "precision": "fp32"}
    if kind == "train":
        tiny |= {"batch_size": 4, "epochs": 1, "val_interval": 1}
    return ConfigWorkflow(
        files, logging_file=False, workflow_type="infer" if kind == "inference" else "train", **(tiny | override)
    )


def carry_out(run: ConfigWorkflow) -> None:
    run.initialize()
    assert run.check_properties() == []
    run.run()
    run.finalize()


def photograph(seed: int, lesion: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Smooth noise with a pale disc, and the disc."""
    rng, (rows, columns) = np.random.default_rng(seed), SIZES[seed % len(SIZES)]
    low = Image.fromarray(rng.integers(60, 200, (6, 8, 3), np.uint8)).resize((columns, rows), Image.Resampling.BICUBIC)
    y, x = np.indices((rows, columns))
    disc = np.hypot(y - rng.uniform(0.4, 0.6) * rows, x - rng.uniform(0.4, 0.6) * columns) < rng.uniform(8, 13)
    disc &= lesion
    return np.where(disc[..., None], np.uint8(235), np.asarray(low)), disc.astype(np.uint8) * 255


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture(scope="module")
def kvasir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs; masks are RGB JPEG, as in Kvasir-SEG."""
    folder = tmp_path_factory.mktemp("kvasir")
    for number in range(12):
        image, mask = photograph(number)
        save(folder / "images" / f"cju{number}.jpg", image, quality=95)
        save(folder / "masks" / f"cju{number}.jpg", np.repeat(mask[..., None], 3, axis=2), quality=80)
    return folder


@pytest.fixture(scope="module")
def giana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames with a lesion, ten without."""
    folder = tmp_path_factory.mktemp("giana")
    for number in range(10):
        image, mask = photograph(number)
        save(folder / "angyodysplasia" / "images" / f"{1000 + number}.jpg", image, quality=95)
        save(folder / "angyodysplasia" / "masks" / f"{1000 + number}_a.jpg", mask, quality=90)
        save(folder / "normal" / "images" / f"{2000 + number}.jpg", photograph(100 + number, lesion=False)[0])
    return folder


@pytest.fixture(scope="module")
def polyp_run(kvasir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("polyp_run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        carry_out(workflow(POLYPS, "train", dataset_dir=str(kvasir), output_dir=str(run), epochs=2))
    return run


def test_polyps_train_evaluate_inference(kvasir: Path, polyp_run: Path, tmp_path: Path):
    recorded = json.loads((polyp_run / "frames.json").read_text())
    parts = [set(recorded[part]) for part in ("train", "validation", "test")]
    assert all(parts) and sum(len(part) for part in parts) == len(set.union(*parts)) == 12
    lines = [json.loads(line) for line in (polyp_run / "validation.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"mean_dice", "polyp_iou", "polyp_precision", "polyp_recall", "polyp_lesion_recall"} <= lines[0].keys()
    model = str(polyp_run / "models" / "model.pt")
    carry_out(workflow(POLYPS, "evaluate", dataset_dir=str(kvasir), model_file=model))
    rows = list(csv.DictReader((polyp_run / "eval" / "metrics.csv").open()))
    assert {row["case"] for row in rows} == set(recorded["test"])
    page = (polyp_run / "eval" / "overlays.html").read_text()
    assert all(f"<b>{name}</b>" in page for name in recorded["test"])
    images = str(kvasir / "images")
    carry_out(workflow(POLYPS, "inference", dataset_dir=images, model_file=model, output_dir=str(tmp_path)))
    assert len(list(tmp_path.iterdir())) == 12
    for row in rows:  # the written mask is what was judged
        mask = np.asarray(Image.open(tmp_path / f"{row['case']}_mask.png"))
        truth = read_mask(kvasir / "masks" / f"{row['case']}.jpg")
        assert mask.shape == truth.shape
        assert set(np.unique(mask)) <= {0, 255}
        both = (mask > 0) & truth
        assert float(row["dice"]) == pytest.approx(2 * both.sum() / ((mask > 0).sum() + truth.sum()), abs=1e-5)


def test_another_data_set_is_evaluated_whole_and_without_a_page(polyp_run: Path, tmp_path: Path):
    for number in range(3):
        image, mask = photograph(50 + number)
        save(tmp_path / "other" / "images" / f"new{number}.jpg", image)
        save(tmp_path / "other" / "masks" / f"new{number}.jpg", mask * (number > 0))
    override = {"model_file": str(polyp_run / "models" / "model.pt"), "output_dir": str(tmp_path / "eval")}
    carry_out(
        workflow(
            POLYPS, "evaluate", dataset_dir=str(tmp_path / "other"), evaluate_part="all", overlays=False, **override
        )
    )
    polyp = json.loads((tmp_path / "eval" / "summary.json").read_text())["classes"]["polyp"]
    assert (polyp["images"], polyp["normal_images"]) == (3, 1)
    assert polyp["specificity_on_normal_images"] in (0.0, 1.0)
    assert not (tmp_path / "eval" / "overlays.html").exists()


def test_angiodysplasia_train_evaluate_inference(giana: Path, tmp_path: Path):
    run = tmp_path / "run"
    carry_out(workflow(ANGIODYSPLASIA, "train", dataset_dir=str(giana), output_dir=str(run)))
    recorded = json.loads((run / "frames.json").read_text())
    for part in ("train", "validation", "test"):
        assert {name.split("-")[0] for name in recorded[part]} == {"normal", "angiodysplasia"}, part
    model = str(run / "models" / "model.pt")
    carry_out(
        workflow(
            ANGIODYSPLASIA, "evaluate", dataset_dir=str(giana), model_file=model, output_dir=str(tmp_path / "eval")
        )
    )
    rows = list(csv.DictReader((tmp_path / "eval" / "metrics.csv").open()))
    found = json.loads((tmp_path / "eval" / "summary.json").read_text())["classes"]["angiodysplasia"]
    positives = [float(row["dice"]) for row in rows if int(row["true_pixels"]) > 0]
    silent = [row["predicted_pixels"] == "0" for row in rows if row["true_pixels"] == "0"]
    assert len(positives) == found["positive_images"] > 0
    assert len(silent) == found["normal_images"] > 0
    assert found["positives_only"]["dice"]["mean"] == pytest.approx(np.mean(positives), abs=1e-6)
    assert found["specificity_on_normal_images"] == pytest.approx(np.mean(silent))
    override = {"dataset_dir": str(giana / "normal"), "model_file": model, "output_dir": str(tmp_path / "masks")}
    carry_out(workflow(ANGIODYSPLASIA, "inference", **override))
    assert len(list((tmp_path / "masks" / "images").glob("*_mask.png"))) == 10


def save_turned(path: Path, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    save(path, pixels, exif=exif)


STRANGERS: dict[str, tuple[tuple[int, int], Callable[[Path, np.ndarray], None]]] = {
    "tiny.jpg": ((17, 23), save),
    "one_pixel.bmp": ((1, 1), save),
    "huge.jpg": ((2000, 3000), save),
    "grey16.png": ((60, 50), lambda path, pixels: save(path, pixels[..., 0].astype(np.uint16) * 257)),
    "palette.png": ((40, 64), lambda path, pixels: Image.fromarray(pixels).quantize(8).save(path)),
    "cmyk.jpg": ((33, 65), lambda path, pixels: Image.fromarray(pixels).convert("CMYK").save(path)),
    "rgba.png": ((64, 31), lambda path, pixels: save(path, np.dstack([pixels, pixels[..., 1]]))),
    "turned.jpg": ((30, 70), save_turned),
    "slide.tif": ((45, 37), save),
}


def test_masks_of_strangers_files_lie_on_them(polyp_run: Path, tmp_path: Path):
    folder, out = tmp_path / "photographs" / "mixed", tmp_path / "masks"
    folder.mkdir(parents=True)
    for number, (name, (size, write)) in enumerate(STRANGERS.items()):
        small = np.random.default_rng(number).integers(0, 256, (*(min(n, 60) for n in size), 3), np.uint8)
        write(folder / name, np.asarray(Image.fromarray(small).resize(size[::-1])))
    override = {"model_file": str(polyp_run / "models" / "model.pt"), "write_probabilities": True}
    carry_out(workflow(POLYPS, "inference", dataset_dir=str(folder.parent), output_dir=str(out), **override))
    assert len(list(out.rglob("*.png"))) == 2 * len(STRANGERS)
    for name in STRANGERS:
        stem = name.split(".")[0]
        with Image.open(folder / name) as photograph_, Image.open(out / "mixed" / f"{stem}_mask.png") as mask:
            assert mask.size == photograph_.size, name
            assert mask.mode == "L"
            assert ImageOps.exif_transpose(mask).size == ImageOps.exif_transpose(photograph_).size, name
            values = np.asarray(mask)
            assert set(np.unique(values)) <= {0, 255}
        probability = np.asarray(Image.open(out / "mixed" / f"{stem}_probability.png")).astype(float) / 65535
        assert np.array_equal(probability > 0.5, values > 0) or np.isclose(probability, 0.5, atol=1e-4).any(), name


def test_one_photograph_alone(kvasir: Path, polyp_run: Path, tmp_path: Path):
    model = str(polyp_run / "models" / "model.pt")
    source = kvasir / "images" / "cju3.jpg"
    carry_out(workflow(POLYPS, "inference", dataset_dir=str(source), model_file=model, output_dir=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["cju3_mask.png"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: save(folder / "masks" / "cju2.jpg", np.zeros((20, 20), np.uint8)), r"cju2\.jpg.*cju2\.jpg"),
        (
            lambda folder: (folder / "images" / "cju2.jpg").write_bytes(
                (folder / "images" / "cju2.jpg").read_bytes()[:-200]
            ),
            r"cju2\.jpg",
        ),
    ],
    ids=["mask of another size", "truncated photograph"],
)
def test_wrong_training_data_stop_with_the_name_of_the_file(
    damage: Callable[[Path], Any], message: str, tmp_path: Path
):
    for number in range(6):
        image, mask = photograph(number)
        save(tmp_path / "data" / "images" / f"cju{number}.jpg", image)
        save(tmp_path / "data" / "masks" / f"cju{number}.jpg", mask)
    damage(tmp_path / "data")
    override = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "run"), "duplicate_threshold": None}
    names = [f"cju{number}" for number in (0, 1)]
    with pytest.raises(Exception) as caught:
        carry_out(workflow(POLYPS, "train", **override, test_groups=names[:1], validation_groups=names[1:]))
    cause = user_error_of(caught.value)
    assert isinstance(cause, DataError)
    assert re.search(message, str(cause))


@pytest.mark.parametrize("bundle", [POLYPS, ANGIODYSPLASIA])
def test_a_batch_that_shows_nothing_has_a_loss_with_a_minimum(bundle: str):
    parser = ConfigParser(ConfigParser.load_config_file(str(ROOT / "bundles" / bundle / "configs" / "train.json")))
    loss = parser.get_parsed_content("loss")
    empty = torch.zeros(2, 1, 16, 16)
    logits = torch.zeros(2, 2, 16, 16, requires_grad=True)
    value = loss(logits, empty)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[:, 1] > 0).all()  # less of the class everywhere
    assert (logits.grad[:, 0] < 0).all()
    silent = torch.stack([torch.full((2, 16, 16), 20.0), torch.full((2, 16, 16), -20.0)], dim=1)
    assert float(loss(silent, empty)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("bundle", [POLYPS, ANGIODYSPLASIA])
def test_augmentation_moves_photograph_and_mask_together_and_fills_with_black(bundle: str):
    parser = ConfigParser(ConfigParser.load_config_file(str(ROOT / "bundles" / bundle / "configs" / "train.json")))
    parser.update({"image_size": 64})
    steps = [
        *parser.get_parsed_content("train#random_transforms")[1:],
        *parser.get_parsed_content("train#final_transforms"),
    ]
    y, x = np.indices((64, 64))
    disc = torch.from_numpy((np.hypot(y - 25, x - 38) < 9).astype(np.uint8))[None]
    black = (0 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    outlines = []
    for seed in range(12):
        item: Any = {"image": (disc * 255).expand(3, -1, -1).clone(), "label": disc.clone()}
        for number, step in enumerate(steps):
            if hasattr(step, "set_random_state"):
                step.set_random_state(seed=seed * 10 + number)
            item = step(item)
        assert set(item["label"].unique().tolist()) <= {0.0, 1.0}
        assert type(item["image"]) is torch.Tensor
        bright = item["image"][0] > (0.5 - 0.485) / 0.229
        assert (bright != (item["label"][0] > 0)).float().mean() < 0.02
        darkest = item["image"].amin(dim=(1, 2))
        assert torch.allclose(darkest, black, atol=1e-4)
        outlines.append(bright.numpy().tobytes())
    assert len(set(outlines)) > 6
