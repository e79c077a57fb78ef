"""``ssl-transfer demo``: phantoms, ingest, pretraining, transfer beside training from scratch, one HTML page."""

from __future__ import annotations

import csv
import json
import multiprocessing
import shutil
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from monai_ssl_transfer.data.ct.ingest import ingest_ct
from monai_ssl_transfer.data.ct.layouts import liver_cases
from monai_ssl_transfer.data.ct.nifti import read_nifti_ct, read_nifti_labels
from monai_ssl_transfer.data.phantoms.ct_dataset import write_phantom_dataset
from monai_ssl_transfer.demo.comparison import paired_difference
from monai_ssl_transfer.demo.page import html_table, write_page
from monai_ssl_transfer.demo.pictures import LabelledSlice, contour_sheet, curves
from monai_ssl_transfer.demo.plan import ARMS, DemoPlan
from monai_ssl_transfer.demo.steps import pretrain, run_folder, transfer
from monai_ssl_transfer.errors import DataError

MARK = "made_by_ssl_transfer_demo"


class Demo:
    """The demo; each step writes into its own folder under ``out``.

    Args:
        out: folder for everything.
        plan: sizes.
    """

    def __init__(self, out: Path, plan: DemoPlan | None = None) -> None:
        self.out = out
        self.plan = plan or DemoPlan()
        self.lits = out / "phantoms" / "lits"
        self.parts: dict[str, list[str]] = {}

    def run(self) -> Path:
        """Run every step and return the HTML page."""
        start = time.perf_counter()
        self.clear()
        self.data()
        self.train()
        return self.report(time.perf_counter() - start)

    def clear(self) -> None:
        """Empty the folder, if it is the demo's own.

        Raises:
            DataError: the folder holds something else.
        """
        if self.out.exists() and any(self.out.iterdir()):
            if not (self.out / MARK).exists():
                raise DataError(f"{self.out} holds files that no demo wrote: give another folder with --out.")
            shutil.rmtree(self.out)
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / MARK).touch()

    def data(self) -> None:
        """Generate the phantoms and ingest the unlabelled ones; only these are seen in pretraining."""
        write_phantom_dataset(self.out / "phantoms", cases=self.plan.cases, size=self.plan.size)
        report = ingest_ct(self.out / "phantoms" / "unlabelled", self.out / "store", workers=2)
        tqdm.write(report.summary())
        self.parts = self.plan.divide([str(case["case"]) for case in liver_cases(self.lits)])

    def train(self) -> None:
        """Pretrain and fine-tune in two processes; the arm from scratch need not wait for the pretraining."""
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=spawn) as pool, self._bar() as bar:
            pretraining = pool.submit(pretrain, self.out, self.plan)
            waiting = {pretraining} | {self._submit(pool, "scratch", seed) for seed in self.plan.seeds}
            while waiting:
                done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                bar.update(self._finished_rounds() - bar.n)
                for future in done:
                    future.result()
                    if future is pretraining:
                        waiting |= {self._submit(pool, "pretrained", seed) for seed in self.plan.seeds}

    def _submit(self, pool: ProcessPoolExecutor, arm: str, seed: int) -> Future[None]:
        return pool.submit(transfer, self.out, self.plan, self.parts, arm, seed)

    def _bar(self) -> Any:
        """A bar over epochs of pretraining and validations of every run."""
        runs = len(ARMS) * len(self.plan.seeds)
        total = self.plan.pretraining["epochs"] + runs * (
            self.plan.transfer["epochs"] // self.plan.transfer["val_interval"]
        )
        return tqdm(total=total, desc="pretraining and transfer", unit="round")

    def _finished_rounds(self) -> int:
        files = [self.out / "pretraining" / "metrics.jsonl", *self.out.glob("transfer/*/*/validation.jsonl")]
        return sum(len(file.read_text().splitlines()) for file in files if file.exists())

    def shown_cases(self) -> list[dict[str, Any]]:
        """Test cases that the page shows."""
        return [case for case in liver_cases(self.lits) if str(case["case"]) in self.parts["test"][: self.plan.shown]]

    def report(self, seconds: float) -> Path:
        """Write ``results.csv`` and ``index.html``; print the table."""
        rows, verdict = self.results()
        with (self.out / "results.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        learned = self._what_the_encoder_learned()
        table = "\n".join("  ".join(f"{cell:>11}" for cell in row) for row in rows)
        tqdm.write(f"\nDice on the test cases\n{table}\n{verdict}\n{learned}\n")
        page = self.out / "index.html"
        write_page(
            page,
            "From unlabelled scans to a segmented liver",
            {
                "What was run": self._what_was_run(seconds),
                "What the encoder learned without labels": f'<p class="verdict">{learned}</p>',
                "Dice on the test cases": html_table(rows[0], rows[1:]) + f'<p class="verdict">{verdict}</p>',
                "Curves": self._curves(),
                "Test slices: truth (green) and prediction (dashed)": contour_sheet(
                    self._slices(), self.out / "contours.png"
                ),
            },
        )
        return page

    def results(self) -> tuple[list[list[str]], str]:
        """Mean Dice per run over the test volumes, per class, and what the paired interval says of the liver."""
        values: dict[tuple[str, str], list[float]] = {}
        for arm in ARMS:
            for seed in self.plan.seeds:
                with (run_folder(self.out, arm, seed) / "test" / "metrics.csv").open() as file:
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

    def _what_the_encoder_learned(self) -> str:
        folder = self.out / "pretraining"
        before = json.loads((folder / "random_knn.json").read_text())["knn_balanced_accuracy"]
        after = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["knn_balanced_accuracy"]
        return (
            "Body region of a slice from its nearest neighbours in other patients (balanced accuracy, chance 0.17): "
            f"{before:.2f} with random weights, {after:.2f} after pretraining."
        )

    def _curves(self) -> str:
        lines = (self.out / "pretraining" / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        pretraining = {"loss": [record["loss"] for record in records]}
        pretraining["kNN of the body region"] = [record["knn_balanced_accuracy"] for record in records]
        transfer = {
            arm: [_validation_curve(run_folder(self.out, arm, seed)) for seed in self.plan.seeds] for arm in ARMS
        }
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
        return read_nifti_labels(run_folder(self.out, arm, self.plan.seeds[0]) / "masks" / f"{name}_seg.nii.gz", image)


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
    return Demo(out).run()
