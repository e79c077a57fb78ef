"""The two endoscopic classification bundles on tiny generated photographs, as a user runs them."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from monai.bundle import ConfigWorkflow
from PIL import Image
from torch import multiprocessing

from monai_ssl_transfer.data.class_balance import record_class_support
from monai_ssl_transfer.data.endoscopy.hyperkvasir import class_names
from monai_ssl_transfer.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
FINDINGS = "endoscopy_finding_classification"
ANGIODYSPLASIA = "endoscopy_angiodysplasia_classification"
KINDS = {"train": ["train"], "evaluate": ["train", "evaluate"], "inference": ["inference"]}
TINY = {"num_workers": 0, "device": torch.device("cpu"), "image_size": 48, "batch_size": 8}


def photograph(path: Path, colour: tuple[int, int, int], rng: np.random.Generator, size: int = 40) -> Path:
    """A blotchy picture of one tint: blotches make perceptual hashes differ, the tint can be learnt."""
    blotches = rng.normal(0, 30, (6, 6)).repeat(8, axis=0).repeat(8, axis=1)[:size, :size, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.clip(np.array(colour) + blotches + rng.normal(0, 4, (size, size, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(picture).save(path, quality=95)
    return path


def tint(number: int) -> tuple[int, int, int]:
    return (60 + 150 * (number % 2), 60 + 150 * (number // 2 % 2), 60 + 75 * (number // 4))


def write_tree(folder: Path, task: str, counts: dict[str, int]) -> Path:
    """HyperKvasir's tree with so many photographs of every class."""
    rng = np.random.default_rng(0)
    branch = {"landmarks": "anatomical-landmarks", "findings": "pathological-findings"}[task]
    for number, name in enumerate(class_names(task)):
        for one in range(counts.get(name, 6)):
            tract = "lower-gi-tract" if number % 2 else "upper-gi-tract"
            photograph(folder / "labeled-images" / tract / branch / name / f"{name}-{one}.jpg", tint(number), rng)
    return folder


@pytest.fixture(scope="module")
def landmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("landmarks"), "landmarks", {"z-line": 12, "ileum": 3})


@pytest.fixture(scope="module")
def giana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("giana"), np.random.default_rng(1)
    (folder / "angyodysplasia" / "masks").mkdir(parents=True)
    for one in range(12):
        photograph(folder / "angyodysplasia" / "images" / f"{one}.jpg", (200, 60, 60), rng)
        mask = Image.fromarray(np.full((40, 40), 255, np.uint8))
        mask.save(folder / "angyodysplasia" / "masks" / f"{one}_a.jpg")
        photograph(folder / "normal" / "images" / f"{one}.jpg", (200, 160, 60), rng)
    return folder


def workflow(bundle: str, kind: str, overlays: tuple[str, ...] = (), **override: Any) -> ConfigWorkflow:
    configs = ROOT / "bundles" / bundle / "configs"
    files = [str(configs / f"{name}.json") for name in (*KINDS[kind], *overlays)]
    files.append(str(ROOT / "configs" / "networks" / "classifier_resnet18.json"))
    purpose = "infer" if kind == "inference" else "train"
    return ConfigWorkflow(files, logging_file=False, workflow_type=purpose, **(TINY | override))


def carry_out(run: ConfigWorkflow) -> None:
    run.initialize()
    assert run.check_properties() == []
    run.run()
    run.finalize()


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_landmarks_train_evaluate_inference(landmarks: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run, names = tmp_path / "run", class_names("landmarks")
    settings = {"dataset_dir": str(landmarks), "output_dir": str(run), "epochs": 1}
    with caplog.at_level(logging.INFO):
        carry_out(workflow(FINDINGS, "train", **settings))
    assert "images per class and part" in caplog.text
    frames = json.loads((run / "frames.json").read_text())
    assert not set(frames["train"]) & set(frames["test"])
    support = json.loads((run / "class_support.json").read_text())
    assert {name: sum(support[part][name] for part in support) for name in names} == {
        **dict.fromkeys(names, 6), "z-line": 12, "ileum": 3
    }  # fmt: skip
    assert (run / "validation.jsonl").is_file()

    model = {"dataset_dir": str(landmarks), "model_file": str(run / "models" / "model.pt")}
    carry_out(workflow(FINDINGS, "evaluate", **model))
    summary = json.loads((run / "eval" / "summary.json").read_text())
    assert summary["n"] == len(frames["test"])
    assert summary["support"] == {**support, "evaluated": support["test"]}
    rows = table(run / "eval" / "predictions.csv")
    assert {Path(row["file"]).stem for row in rows} == set(frames["test"])
    assert all(Path(row["file"]).parent.name == row["truth"] for row in rows)
    assert [row["name"] for row in table(run / "eval" / "metrics.csv")] == list(names)
    assert summary["accuracy"] == pytest.approx(np.mean([row["truth"] == row["predicted"] for row in rows]))
    f1 = [f1_of(name, rows) for name in names]
    assert summary["macro_f1"] == pytest.approx(np.mean([one for one in f1 if one is not None]))

    carry_out(workflow(FINDINGS, "inference", **model, output_dir=str(tmp_path / "out")))
    found = {row["file"]: row for row in table(tmp_path / "out" / "predictions.csv")}
    assert len(found) == 39
    for row in rows:
        again = found[row["file"]]
        assert again["truth"] == ""
        assert [float(again[name]) for name in names] == pytest.approx([float(row[name]) for name in names], abs=1e-4)


def f1_of(name: str, rows: list[dict[str, str]]) -> float | None:
    hits = sum(row["truth"] == row["predicted"] == name for row in rows)
    claims = sum((row["truth"] == name) + (row["predicted"] == name) for row in rows)
    return 2 * hits / claims if claims else None


def test_angiodysplasia_train_evaluate(giana: Path, tmp_path: Path):
    run = tmp_path / "run"
    carry_out(workflow(ANGIODYSPLASIA, "train", dataset_dir=str(giana), output_dir=str(run), epochs=2))
    model = {"dataset_dir": str(giana), "model_file": str(run / "models" / "model.pt")}
    carry_out(workflow(ANGIODYSPLASIA, "evaluate", **model, specificities=[0.5, 0.9]))
    summary = json.loads((run / "eval" / "summary.json").read_text())
    rows = table(run / "eval" / "predictions.csv")
    positive = [float(row["angiodysplasia"]) for row in rows if row["truth"] == "angiodysplasia"]
    negative = [float(row["angiodysplasia"]) for row in rows if row["truth"] == "normal"]
    assert summary["support"]["evaluated"] == {"normal": len(negative), "angiodysplasia": len(positive)}
    ordered = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert summary["finding"]["auroc"] == pytest.approx(np.mean(ordered))
    for point in summary["finding"]["sensitivity_at_specificity"]:
        assert point["specificity"] >= point["specificity_asked"]
    last = json.loads((run / "validation.jsonl").read_text().splitlines()[-1])
    assert {"auroc", "average_precision", "sensitivity_at_specificity_0.9"} <= last.keys()


def test_rare_classes_survive_fraction_split_and_balance(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write_tree(tmp_path / "data", "findings", {"polyps": 20, "hemorrhoids": 2, "barretts": 1})
    settings = {"dataset_dir": str(folder), "output_dir": str(tmp_path / "run"), "task": "findings"} | {
        "cache_rate": 0.0,
        "duplicate_threshold": None,
    }
    chosen = {}
    for balance in ("sampler", "loss", "none"):
        run = workflow(FINDINGS, "train", **settings, label_fraction=0.4, balance=balance)
        run.initialize()
        labels = run.parser.get_parsed_content("training_labels")
        assert set(labels) == set(range(12))  # one of every class is left, however few are taken
        chosen[balance] = (
            labels,
            run.parser.get_parsed_content("train#sampler"),
            run.parser.get_parsed_content("loss").weight,
            run.parser.get_parsed_content("cases"),
        )
    labels, sampler, weights, cases = chosen["sampler"]
    drawn = Counter(int(labels[index]) for index in sampler)
    assert max(drawn.values()) - min(drawn.values()) <= 1
    assert weights is None
    labels, sampler, weights, _ = chosen["loss"]
    assert sampler is None
    assert weights.tolist() == pytest.approx([len(labels) / (12 * n) for n in np.bincount(labels, minlength=12)])
    assert chosen["none"][1:3] == (None, None)
    with caplog.at_level(logging.WARNING):
        record_class_support(cases, class_names("findings"), tmp_path / "run")
    absent = next(message for message in caplog.messages if message.startswith("test has no image of"))
    assert "barretts" in absent  # its only photograph is trained on, and the log says what that costs


def test_the_official_fold_is_held_out(landmarks: Path, tmp_path: Path):
    names = class_names("landmarks")
    files = sorted((landmarks / "labeled-images").rglob("*.jpg"))
    lines = [f"{file.name};{file.parent.name};{number % 2}" for number, file in enumerate(files)]
    split = tmp_path / "2_fold_split.csv"
    split.write_text("\n".join(["file-name;class-name;split-index", *lines]) + "\n")
    run = workflow(
        FINDINGS,
        "train",
        dataset_dir=str(landmarks),
        output_dir=str(tmp_path / "run"),
        split_file=str(split),
        test_fold=1,
    )
    run.initialize()
    cases = run.parser.get_parsed_content("cases")
    assert sorted(case["name"] for case in cases["test"]) == sorted(file.stem for file in files[1::2])
    assert {names[case["class"]] for case in cases["train"]} == set(names)


def test_every_worker_has_its_own_randomness_and_a_seed_repeats_it(giana: Path, tmp_path: Path):
    def loaded() -> list[torch.Tensor]:
        run = workflow(
            ANGIODYSPLASIA, "train", dataset_dir=str(giana), output_dir=str(tmp_path), num_workers=2, batch_size=1,
            balance="none",
        )  # fmt: skip
        run.initialize()
        data = run.parser.get_parsed_content("train#dataset")
        data.set_data([data.data[0]] * 6)
        return [batch["image"] for batch in run.parser.get_parsed_content("train#dataloader")]

    first, again = loaded(), loaded()
    assert len({image.numpy().tobytes() for image in first}) == 6
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_photographs_of_every_kind_are_predicted(tmp_path: Path):
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 255, (30, 50, 3), dtype=np.uint8))
    folder = tmp_path / "in" / "deeper"
    folder.mkdir(parents=True)
    for mode in ("L", "P", "RGBA", "1"):
        picture.convert(mode).save(folder / f"{mode}.png")
    picture.convert("CMYK").save(folder / "CMYK.tiff")
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) << 8).save(folder / "16bit.png")
    picture.resize((3, 200)).save(tmp_path / "in" / "narrow.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture.save(tmp_path / "in" / "turned.jpg", exif=turned)
    model = tmp_path / "model.pt"
    run = workflow(FINDINGS, "inference")
    torch.save(run.parser.get_parsed_content("network_def").state_dict(), model)
    settings = {"model_file": str(model), "output_dir": str(tmp_path / "out")}
    carry_out(workflow(FINDINGS, "inference", dataset_dir=str(tmp_path / "in"), **settings))
    rows = table(tmp_path / "out" / "predictions.csv")
    assert len(rows) == 8
    assert {"deeper/CMYK.tiff", "narrow.jpg"} <= {row["file"] for row in rows}
    for row in rows:
        assert sum(float(row[name]) for name in class_names("landmarks")) == pytest.approx(1, abs=1e-4)
    carry_out(workflow(FINDINGS, "inference", dataset_dir=str(tmp_path / "in" / "turned.jpg"), **settings))
    (single,) = table(tmp_path / "out" / "predictions.csv")
    same = next(row for row in rows if row["file"] == "turned.jpg")
    assert [float(single[n]) for n in class_names("landmarks")] == pytest.approx(
        [float(same[n]) for n in class_names("landmarks")], abs=1e-4
    )
    content = (tmp_path / "in" / "turned.jpg").read_bytes()
    (tmp_path / "in" / "turned.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(RuntimeError) as caught:  # MONAI wraps what a transform raises
        carry_out(workflow(FINDINGS, "inference", dataset_dir=str(tmp_path / "in" / "turned.jpg"), **settings))
    cause = caught.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
        if isinstance(cause, DataError):
            break
    assert isinstance(cause, DataError)
    assert "turned.jpg" in str(cause)


def train_in_a_process(rank: int, giana: str, folder: str) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", OMP_NUM_THREADS="1")
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    run = workflow(
        ANGIODYSPLASIA, "train", ("multi_gpu_train",), dataset_dir=giana, output_dir=f"{folder}/run", epochs=1,
        balance="sampler", batch_size=4,
    )  # fmt: skip
    run.initialize()
    run.run()
    sampler = run.parser.get_parsed_content("train#sampler")
    state = run.parser.get_parsed_content("network_def").state_dict()
    torch.save({"order": list(sampler), "epoch": sampler.epoch, "conv1": state["conv1.weight"]}, f"{folder}/{rank}.pt")
    run.finalize()


@pytest.mark.slow
def test_two_processes_train_one_network(giana: Path, tmp_path: Path):
    multiprocessing.spawn(train_in_a_process, (str(giana), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert torch.equal(first["conv1"], second["conv1"])
    assert first["epoch"] == 1  # a new order every epoch
    assert len(first["order"]) == len(second["order"])
    assert not set(first["order"]) & set(second["order"])
    kept = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    assert torch.equal(kept["conv1.weight"], first["conv1"])
    assert len((tmp_path / "run" / "validation.jsonl").read_text().splitlines()) == 1
