"""A small study folder in the formats that `ssl-transfer study run` writes: invented numbers, real files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_ssl_transfer.evaluation.overlay_page import PICTURES, write_pictures
from monai_ssl_transfer.evaluation.segmentation import LIVER_CLASSES
from monai_ssl_transfer.evaluation.segmentation_report import SegmentationReport
from monai_ssl_transfer.evaluation.volume_overlays import VolumeOverlayPage
from monai_ssl_transfer.study.cell_values import values_of
from monai_ssl_transfer.study.declaration import (
    Comparison,
    Declaration,
    DeclaredCell,
    Family,
    Metric,
    write_declaration,
)
from monai_ssl_transfer.study.results import Cell, Results, write_results

GAIN = {"scratch": 0.0, "ImageNet": 0.06, "own": 0.12}
SEEDS = (0, 1, 2)
POLYPS, FINDINGS = "polyps", "findings"
SETTINGS = ((POLYPS, "fine-tuning", 1.0), (POLYPS, "fine-tuning", 0.1), (FINDINGS, "fine-tuning", 1.0),
            (FINDINGS, "kNN", 1.0))  # fmt: skip
FAILED = ("findings", "own", "fine-tuning", 1.0, 2)
NOT_STARTED = ("polyps", "own", "fine-tuning", 0.1, 2)
CASES = 24


def study_folder(folder: Path, robustness: bool = True) -> Path:
    """Write a study of three initialisations, two tasks and three seeds; one run failed, one was not started."""
    for task, protocol, fraction in SETTINGS:
        for name in GAIN:
            for seed in SEEDS:
                if (task, name, protocol, fraction, seed) != NOT_STARTED:
                    _cell(folder, Cell("", task, name, protocol, fraction), seed)
    if robustness:
        _robustness(folder)
    _extras(folder)
    declaration = declared()
    write_declaration(declaration, folder / "study.json")
    (folder / "study.yaml").write_text(
        "title: Polyps\nbudget: 20 epochs, learning rate 1e-4, none tried but this one\n"
    )
    rows = [row for file in sorted((folder / "cells").glob("*/cell.json")) for row in values_of(file.parent)]
    write_results(Results.of_rows(rows), folder / "results.parquet")
    return folder


def declared() -> Declaration:
    """Both candidates against scratch, in one family per task."""
    metrics = {POLYPS: ("dice",), FINDINGS: ("accuracy", "macro_f1")}
    cells = tuple(
        DeclaredCell(Cell("", task, name, protocol, fraction), metrics[task], SEEDS)
        for task, protocol, fraction in SETTINGS
        for name in GAIN
    )
    families = tuple(
        Family(task, "every initialisation against scratch; declared before the runs", tuple(
            Comparison(one.cell, replace(one.cell, initialisation="scratch"), metric)
            for one in cells if one.cell.task == task and one.cell.initialisation != "scratch"
            for metric in one.metrics[:1]
        ))
        for task in metrics
    )  # fmt: skip
    shown = tuple(
        Comparison(one.cell, replace(one.cell, initialisation="scratch"), metric)
        for one in cells if one.cell.initialisation != "scratch" for metric in one.metrics[1:]
    )  # fmt: skip
    rules = (Metric("dice", digits=4, margin=0.02), Metric("accuracy", digits=4), Metric("macro_f1", digits=4))
    return Declaration("Which encoder for <polyps>?", "Invented numbers.", rules, cells, families, shown,
                       notes=("Declared before the runs.",))  # fmt: skip


def _cell(folder: Path, cell: Cell, seed: int) -> None:
    """One run: cell.json and the files of its evaluation."""
    rng = np.random.default_rng([seed, len(cell.initialisation), len(cell.task), round(cell.fraction * 10)])
    name = f"{cell.task}__{cell.initialisation}__{cell.protocol}__{cell.fraction:g}__seed{seed}"
    own, failed = (
        folder / "cells" / name,
        (cell.task, cell.initialisation, cell.protocol, cell.fraction, seed) == FAILED,
    )
    record: dict[str, Any] = {
        "format": 1,
        "cell": {"study": "", "task": cell.task, "initialisation": cell.initialisation, "protocol": cell.protocol,
                 "fraction": cell.fraction, "seed": seed},
        "status": "failed" if failed else "done",
        "reason": "mask 7.png is empty: remove it." if failed else "",
        "kind": "probe" if cell.protocol == "kNN" else "bundle",
        "seconds": 100.0 + 10 * seed,
        "peak_memory_bytes": 3 * 2**30,
        "device": "cpu",
        "training_images": 80,
        "trainable_parameters": None if cell.protocol == "kNN" else 1_250_000,
        "evaluation": "eval",
        "attempts": 1,
    }  # fmt: skip
    (own / "eval").mkdir(parents=True)
    (own / "cell.json").write_text(json.dumps(record))
    if not failed:
        gain = GAIN[cell.initialisation] * (1 if cell.task == POLYPS else 0.3)
        hard = np.linspace(0, 0.4, CASES)
        quality = np.clip(
            0.9 - hard + gain * cell.fraction**0.2 + rng.normal(0, 0.01) + rng.normal(0, 0.02, CASES), 0, 1
        )
        (_polyps if cell.task == POLYPS else _findings)(own / "eval", quality, rng)


def _rows(file: Path, rows: list[list[Any]]) -> None:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def _judged(file: Path, letter: str, gained: Iterable[float]) -> None:
    """Two cases per patient."""
    rows = [[f"{letter}{n}", f"p{n // 2}", "a", value, 1.0] for n, value in enumerate(gained)]
    _rows(file, [["case", "group", "stratum", "gained", "possible"], *rows])


def _polyps(folder: Path, quality: np.ndarray, rng: np.random.Generator) -> None:
    _rows(folder / "metrics.csv", [["case", "class", "dice"], *([f"c{n}", "polyp", q] for n, q in enumerate(quality))])
    _judged(folder / "judged.csv", "c", quality)
    (folder / "summary.json").write_text("{}")
    (folder / "overlays").mkdir()
    for n, q in enumerate(quality):
        pixels = np.full((120, 160, 3), (150, 80, 70), np.uint8)
        pixels[30:90, 40:120] = (200, 120, 100)
        pixels[30 : 30 + int(60 * q), 38:40] = (70, 170, 255)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=60)
        (folder / "overlays" / f"{n}.jpg").write_bytes(stream.getvalue())
    (folder / "overlays" / "cases.json").write_text(json.dumps({f"c{n}": f"{n}.jpg" for n in range(CASES)}))


def judge_volumes(folder: Path, predictions: Mapping[str, np.ndarray], truth: np.ndarray) -> None:
    """Write what the evaluation of volumes writes: metrics, and a slice of every case."""
    report = SegmentationReport(LIVER_CLASSES, surfaces=False)
    page = VolumeOverlayPage(report, folder)
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0]))
    drawn = {}
    for case, prediction in predictions.items():
        report.add(case, prediction, truth, (2.0, 2.0, 3.0))
        arrays = {"image": 40.0 + truth, "label": truth, "pred": prediction}
        found = {key: MetaTensor(torch.as_tensor(one)[None], affine=affine) for key, one in arrays.items()}
        drawn[case] = page.draw(found).jpeg
    report.write(folder)
    write_pictures(drawn, folder / PICTURES)


def _findings(folder: Path, quality: np.ndarray, rng: np.random.Generator) -> None:
    right = rng.random(CASES) < quality
    _rows(folder / "metrics.csv", [["name", "support", "auroc"], ["a", CASES, 0.8]])
    _judged(folder / "judged.csv", "f", right.astype(float))
    (folder / "summary.json").write_text(json.dumps({"macro_f1": float(right.mean()) - 0.01, "auroc": 0.8, "n": CASES}))


def _robustness(folder: Path) -> None:
    """Grids of the polyp runs with all labels: own loses least."""
    for cell_file in sorted((folder / "cells").glob("polyps__*__1__*/cell.json")):
        record = json.loads(cell_file.read_text())
        name, seed = record["cell"]["initialisation"], record["cell"]["seed"]
        for corruption, severity in _grid():
            loss = severity * (0.05 - 0.2 * GAIN[name]) * (1.3 if corruption == "smoke" else 0.7)
            dice = [0.8 + GAIN[name] - loss * (1 + 0.1 * (n % 4)) - 0.01 * (n % 5) + 0.002 * seed for n in range(CASES)]
            part = cell_file.parent / "robustness" / "cells" / corruption / (str(severity) if severity else "")
            part.mkdir(parents=True, exist_ok=True)
            _judged(part / "cases.csv", "c", dice)
            told = {"corruption": corruption, "severity": severity, "metric": "mean Dice", "higher": True}
            (part / "cell.json").write_text(json.dumps(told))


def _grid() -> Iterator[tuple[str, int]]:
    yield "clean", 0
    for corruption in ("smoke", "jpeg", "motion_blur"):
        yield from ((corruption, severity) for severity in (1, 3, 5))


def _extras(folder: Path) -> None:
    """A pretraining, a ranking and embeddings."""
    for name in ("pretraining/own", "ranking", f"embeddings/{FINDINGS}"):
        (folder / name).mkdir(parents=True)
    (folder / "pretraining" / "own" / "done.json").write_text(json.dumps({"format": 1, "seconds": 7200.0}))
    scores = {name: {"knn": 0.5 + gain, "logme": -gain, "h_score": 1.0} for name, gain in GAIN.items()}
    (folder / "ranking" / f"{FINDINGS}.json").write_text(json.dumps({"task": FINDINGS, "scores": scores}))
    rng = np.random.default_rng(0)
    for name, gain in GAIN.items():
        labels = rng.integers(0, 8, 200)
        points = np.stack([np.cos(labels), np.sin(labels)], 1) * 10 * gain + rng.normal(0, 0.5, (200, 2))
        content = {"method": "PCA", "points": points.tolist(), "labels": labels.tolist(),
                   "class_names": [f"class {n}" for n in range(8)]}  # fmt: skip
        (folder / "embeddings" / FINDINGS / f"{name}.json").write_text(json.dumps(content))
