"""``ssl-transfer demo``: phantoms, ingest, pretraining, transfer beside training from scratch, one HTML page."""

from __future__ import annotations

import csv
import json
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigWorkflow
from tqdm import tqdm

from monai_ssl_transfer.data.ingest import ingest_ct
from monai_ssl_transfer.data.layouts import liver_cases
from monai_ssl_transfer.data.nifti import read_nifti_ct, read_nifti_labels
from monai_ssl_transfer.data.phantoms import write_phantom_dataset
from monai_ssl_transfer.demo.comparison import paired_difference
from monai_ssl_transfer.demo.page import html_table, write_page
from monai_ssl_transfer.demo.pictures import LabelledSlice, contour_sheet, curves
from monai_ssl_transfer.demo.plan import ARMS, DemoPlan, project_folder

logger = logging.getLogger(__name__)


def run_bundle(files: Sequence[str], **overrides: Any) -> None:
    """Do what ``python -m monai.bundle run`` does, in this process: importing MONAI anew costs ten seconds each time.

    Args:
        files: configuration files relative to the project folder, the bundle's own first.
        overrides: ids to override, as on the command line.
    """
    paths = [str(project_folder() / file) for file in files]
    workflow = ConfigWorkflow(config_file=paths, workflow_type="train", logging_file=False, **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()


class Demo:
    """The steps of the demo; each writes into its own folder under ``out``.

    Args:
        out: folder for everything.
        plan: sizes.
    """

    def __init__(self, out: Path, plan: DemoPlan | None = None) -> None:
        self.out = out
        self.plan = plan or DemoPlan()
        self.lits = out / "phantoms" / "lits"
        self.encoder = out / "pretraining" / "encoder.safetensors"
        self.parts: dict[str, list[str]] = {}

    def run(self) -> Path:
        """Run every step and return the HTML page."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("phantoms and ingest", self.data),
            ("self-supervised pretraining", self.pretrain),
        ]
        for seed in self.plan.seeds:
            for arm in ARMS:
                steps.append((f"liver segmentation, {arm}, seed {seed}", partial(self.transfer, arm, seed)))
        start = time.perf_counter()
        with tqdm(steps, unit="step", desc="demo") as bar:
            for name, step in bar:
                bar.set_description(name)
                step()
        return self.report(time.perf_counter() - start)

    def data(self) -> None:
        """Generate the phantoms and ingest the unlabelled ones; only these are seen in pretraining."""
        write_phantom_dataset(self.out / "phantoms", cases=self.plan.cases, size=self.plan.size)
        report = ingest_ct(self.out / "phantoms" / "unlabelled", self.out / "store", workers=2)
        tqdm.write(report.summary())
        self.parts = self.plan.divide([str(case["case"]) for case in liver_cases(self.lits)])

    def pretrain(self) -> None:
        """Pretrain the encoder on the unlabelled slices."""
        run_bundle(
            [
                "bundles/ct_ssl_pretraining/configs/train.json",
                "configs/methods/simclr.json",
                "configs/encoders/resnet18.json",
                "configs/scale/small_store.json",
            ],
            dataset_dir=str(self.out / "store"),
            output_dir=str(self.out / "pretraining"),
            **self.plan.pretraining,
        )

    def transfer(self, arm: str, seed: int) -> None:
        """Fine-tune one arm with one seed, then evaluate it on the test cases and write their masks."""
        folder = self.run_folder(arm, seed)
        bundle = "bundles/ct_liver_segmentation/configs"
        network = "configs/networks/unet_resnet18.json"
        common = {**self.plan.transfer, "dataset_dir": str(self.lits), "seed": seed, "train_cases": self.parts["train"]}
        run_bundle(
            [f"{bundle}/train.json", network],
            output_dir=str(folder),
            cache_dir=str(self.out / "cache"),
            encoder_weights=str(self.encoder) if arm == "pretrained" else None,
            validation_cases=self.parts["validation"],
            **common,
        )
        run_bundle(
            [f"{bundle}/train.json", f"{bundle}/evaluate.json", network],
            model_file=str(folder / "models" / "model.pt"),
            output_dir=str(folder / "test"),
            validation_cases=self.parts["test"],
            **common,
        )
        if seed == self.plan.seeds[0]:
            self.segment(folder)

    def segment(self, folder: Path) -> None:
        """Write the masks of the first three test cases with the trained model of a run."""
        for case in self.shown_cases():
            run_bundle(
                ["bundles/ct_liver_segmentation/configs/inference.json", "configs/networks/unet_resnet18.json"],
                dataset_dir=str(case["image"]),
                output_dir=str(folder / "masks"),
                model_file=str(folder / "models" / "model.pt"),
                pixel_spacing=self.plan.transfer["pixel_spacing"],
            )

    def run_folder(self, arm: str, seed: int) -> Path:
        """Folder of one run."""
        return self.out / "transfer" / arm / f"seed_{seed}"

    def shown_cases(self) -> list[dict[str, Any]]:
        """Test cases that the page shows."""
        return [case for case in liver_cases(self.lits) if str(case["case"]) in self.parts["test"][:3]]

    def report(self, seconds: float) -> Path:
        """Write ``results.csv`` and ``index.html``; print the table."""
        rows, verdict = self.results()
        with (self.out / "results.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        tqdm.write("\n".join("  ".join(f"{cell:>16}" for cell in row) for row in rows) + f"\n{verdict}")
        page = self.out / "index.html"
        write_page(
            page,
            "From unlabelled scans to a segmented liver",
            {
                "What was run": self._what_was_run(seconds),
                "Dice on the test cases": html_table(rows[0], rows[1:]) + f'<p class="verdict">{verdict}</p>',
                "Curves": self._curves(),
                "Test slices: truth (green) and prediction (dashed)": contour_sheet(self._slices()),
            },
        )
        return page

    def results(self) -> tuple[list[list[str]], str]:
        """Mean Dice per run over the test volumes, per class, and what the paired interval says of the liver."""
        values: dict[tuple[str, str], list[float]] = {}
        for arm in ARMS:
            for seed in self.plan.seeds:
                with (self.run_folder(arm, seed) / "test" / "metrics.csv").open() as file:
                    records = list(csv.DictReader(file))
                for name in ("liver", "tumour"):
                    dice = [float(record["dice"]) for record in records if record["class"] == name]
                    values.setdefault((arm, name), []).append(float(np.mean(dice)))
        header = ["arm", "class", *(f"seed {seed}" for seed in self.plan.seeds), "mean", "SD"]
        rows = [header]
        for (arm, name), runs in sorted(values.items(), key=lambda item: item[0][1]):
            spread = float(np.std(runs, ddof=1)) if len(runs) > 1 else float("nan")
            rows.append([arm, name, *(f"{run:.3f}" for run in runs), f"{np.mean(runs):.3f}", f"{spread:.3f}"])
        if len(self.plan.seeds) < 2:
            return rows, "Liver: one seed shows nothing; run at least two."
        difference = paired_difference(values[ARMS[0], "liver"], values[ARMS[1], "liver"])
        return rows, f"Liver: {difference.verdict(*ARMS)}"

    def _what_was_run(self, seconds: float) -> str:
        train, validation, test = (len(self.parts[part]) for part in ("train", "validation", "test"))
        return (
            f"<p>{self.plan.cases} generated patients. SimCLR on the unlabelled half for "
            f"{self.plan.pretraining['epochs']} epochs (ResNet18); then a U-Net on {train} labelled cases, "
            f"chosen on {validation} and tested on {test} others, per volume. Both arms have the same network, "
            f"data, steps and seeds. {seconds / 60:.1f} minutes.</p>"
        )

    def _curves(self) -> str:
        lines = (self.out / "pretraining" / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        pretraining = {"loss": [record["loss"] for record in records]}
        if "knn_accuracy" in records[-1]:
            pretraining["kNN accuracy of the body region"] = [r["knn_accuracy"] for r in records if "knn_accuracy" in r]
        transfer = {arm: [_validation_curve(self.run_folder(arm, seed)) for seed in self.plan.seeds] for arm in ARMS}
        return curves(pretraining, transfer)

    def _slices(self) -> list[LabelledSlice]:
        slices = []
        for case in self.shown_cases():
            volume = read_nifti_ct(Path(case["image"]))
            truth = read_nifti_labels(Path(case["label"]), volume)
            number = int((truth > 0).sum(axis=(1, 2)).argmax())
            masks = {arm: self._mask(arm, Path(case["image"]))[number] for arm in ARMS}
            aspect = volume.spacing[0] / volume.spacing[1]
            slices.append(LabelledSlice(f"case {case['case']}", volume.hu[number], truth[number], masks, aspect))
        return slices

    def _mask(self, arm: str, image: Path) -> np.ndarray:
        name = image.name.removesuffix(".gz").removesuffix(".nii")
        return read_nifti_labels(self.run_folder(arm, self.plan.seeds[0]) / "masks" / f"{name}_seg.nii.gz", image)


def _validation_curve(folder: Path) -> list[float]:
    lines = (folder / "validation.jsonl").read_text().splitlines()
    return [json.loads(line)["liver_dice"] for line in lines]


def run_demo(out: Path) -> Path:
    """Run the demo with its default plan.

    Args:
        out: folder for everything it writes.

    Returns:
        The HTML page.
    """
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("ignite").setLevel(logging.ERROR)
    return Demo(out).run()
