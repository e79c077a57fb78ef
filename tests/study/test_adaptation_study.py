"""LoRA, BitFit, probes, few-shot and robustness as cells of one study, from the YAML file to the report."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from monai_ssl_transfer.execution import Job, Outcome
from monai_ssl_transfer.study.planning.plan import declare_before_runs
from monai_ssl_transfer.study.planning.study_file import read_study
from monai_ssl_transfer.study.report.writing import write_report
from monai_ssl_transfer.study.results import read_results
from monai_ssl_transfer.study.running.runner import StudyRun

PROTOCOLS = {
    "LoRA": {"overlays": "configs/protocols/lora.json", "settings": {"lora_rank": 4}},
    "BitFit": "configs/protocols/bitfit.json",
    "kNN": {"probe": "knn", "settings": {"neighbours": [1, 3]}},
    "linear": {"probe": "linear", "settings": {"epochs": 2}},
    "1 shot": {"probe": "few_shot", "settings": {"shots": 1, "repeats": 3}},
    "4 shots": {"probe": "few_shot", "settings": {"shots": 4, "repeats": 3}},
}


class InThisProcess:
    """Calls the jobs' own functions: importing MONAI for every cell would take longer than the cells."""

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        for job in jobs:
            module, _, name = job.function.partition(":")
            yield Outcome(job, getattr(importlib.import_module(module), name)(job.arguments), "", "", 1, 1.0)


def write_pictures(folder: Path) -> None:
    """Stripes that lie, stripes that stand, and noise."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(48) / 2)
    for name, pattern in (("lying", wave[:, None]), ("standing", wave[None]), ("noise", np.zeros((1, 1)))):
        (folder / name).mkdir(parents=True)
        for number in range(18):
            pixels = 128 + 60 * pattern + rng.normal(0, 40, (48, 48))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB").save(folder / name / f"{number}.png")


def write_study(place: Path) -> Path:
    write_pictures(place / "pictures")
    task = {
        "bundle": "image_classification",
        "data": str(place / "pictures"),
        "overlays": "configs/tasks/image_folder.json",
        "network": "configs/networks/classifier_{encoder}.json",
        "settings": {"epochs": 1, "batch_size": 8, "image_size": 32, "num_workers": 0, "duplicate_threshold": None},
        "robustness": {"corruptions": ["contrast"], "severities": [1, 5]},
        "metrics": ["accuracy", "macro_f1"],
    }
    content = {
        "title": "adaptation",
        "budget": "none",
        "seeds": [0],
        "encoder": "vit_tiny",
        "reference": "scratch",
        "initialisations": {"scratch": None, "also scratch": None},
        "tasks": {"stripes": task},
        "protocols": PROTOCOLS,
    }
    (place / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return place / "study.yaml"


@pytest.mark.slow
def test_every_way_of_adaptation_is_a_cell(tmp_path: Path) -> None:
    plan, out = read_study(write_study(tmp_path)), tmp_path / "out"
    declare_before_runs(plan, out)
    summary = StudyRun(plan, out, InThisProcess(), lambda _: None).run()
    assert (len(summary.done), summary.failed) == (12, {})
    records = {one.parent.name: json.loads(one.read_text()) for one in out.glob("cells/*/cell.json")}
    learnt = {name: record["trainable_parameters"] for name, record in records.items() if "__scratch" in name}
    assert 0 < learnt["stripes__scratch__BitFit__1__seed0"] < learnt["stripes__scratch__LoRA__1__seed0"] < 1_000_000

    results = read_results(out / "results.parquet")
    for name in ("1_shot", "4_shots"):
        folder = out / "cells" / f"stripes__scratch__{name}__1__seed0"
        probe = json.loads((folder / "eval" / "probe.json").read_text())
        record = records[folder.name]
        shots = int(name[0])
        assert record["few_shot"] == {"shots": shots, "probe": "logistic", "draws": 3}
        assert record["training_images"] == 3 * shots
        cell = next(one for one in results.cells() if (one.initialisation, one.protocol[0]) == ("scratch", name[0]))
        for metric in ("accuracy", "macro_f1", "auroc"):
            wanted = np.mean([one[metric] for one in probe["draws"]])
            assert results.per_seed(cell, metric)[0] == pytest.approx(wanted)
        other = json.loads((out / "cells" / f"stripes__also_scratch__{name}__1__seed0/eval/probe.json").read_text())
        drawn = [[one["cases"] for one in each["chosen"]["draws"]] for each in (probe, other)]
        assert drawn[0] == drawn[1]

    page = write_report(out).read_text(encoding="utf-8")
    assert "<section id='robustness'>" in page and "<section id='few-shot'>" in page
    assert "stripes, LoRA" in page.split("<section id='robustness'>")[1]
