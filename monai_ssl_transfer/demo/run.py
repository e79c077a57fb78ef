"""``ssl-transfer demo``: generated images, ingest, pretraining, transfer beside training from scratch, an HTML page."""

from __future__ import annotations

import csv
import multiprocessing
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from monai_ssl_transfer.demo.comparison import paired_difference
from monai_ssl_transfer.demo.page import html_table, write_page
from monai_ssl_transfer.demo.pictures import LabelledPicture, contour_sheet, curves
from monai_ssl_transfer.demo.plan import ARMS, DemoPlan
from monai_ssl_transfer.demo.steps import run_folder
from monai_ssl_transfer.errors import DataError

MARK = "made_by_ssl_transfer_demo"
Step = tuple[Callable[..., None], tuple[Any, ...]]
"""A function of a worker process and its arguments."""


class Demo(ABC):
    """The demo of one domain; each step writes into its own folder under ``out``.

    Args:
        out: folder for everything.
        plan: sizes.
    """

    title: str
    classes: tuple[str, ...]
    """Classes of the metric table; the first one is compared between the arms."""
    score: str
    """Heading of the table and of the validation curve."""

    def __init__(self, out: Path, plan: DemoPlan) -> None:
        self.out = out
        self.plan = plan

    @abstractmethod
    def data(self) -> None:
        """Generate the images and ingest the unlabelled ones; only these are seen in pretraining."""

    @abstractmethod
    def pretraining_step(self) -> Step:
        """Writes ``pretraining/encoder.safetensors`` and ``pretraining/metrics.jsonl``."""

    @abstractmethod
    def transfer_step(self, arm: str, seed: int) -> Step:
        """Writes ``test/metrics.csv`` and ``validation.jsonl`` into the run's folder."""

    @abstractmethod
    def what_was_run(self, minutes: float) -> str:
        """HTML for the page."""

    @abstractmethod
    def what_the_encoder_learned(self) -> str:
        """One sentence with the kNN score of random weights and of the pretrained ones."""

    @abstractmethod
    def pretraining_curves(self) -> dict[str, list[float]]:
        """Two series by name, one value per epoch."""

    @abstractmethod
    def validation_curve(self, folder: Path) -> list[float]:
        """Validation scores of a run."""

    @abstractmethod
    def pictures(self) -> Sequence[LabelledPicture]:
        """Test images with truth and predictions of the first seed."""

    def run(self) -> Path:
        """Run every step and return the HTML page."""
        start = time.perf_counter()
        self.clear()
        self.data()
        self.train()
        return self.report((time.perf_counter() - start) / 60)

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

    def train(self) -> None:
        """Pretrain and fine-tune in two processes; the arm from scratch need not wait for the pretraining."""
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=spawn) as pool, self._bar() as bar:
            pretraining = _submitted(pool, self.pretraining_step())
            waiting = {pretraining} | {
                _submitted(pool, self.transfer_step("scratch", seed)) for seed in self.plan.seeds
            }
            while waiting:
                done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                bar.update(self._finished_rounds() - bar.n)
                for future in done:
                    future.result()
                    if future is pretraining:
                        waiting |= {
                            _submitted(pool, self.transfer_step("pretrained", seed)) for seed in self.plan.seeds
                        }

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

    def report(self, minutes: float) -> Path:
        """Write ``results.csv`` and ``index.html``; print the table."""
        rows, verdict = self.results()
        with (self.out / "results.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        learned = self.what_the_encoder_learned()
        table = "\n".join("  ".join(f"{cell:>11}" for cell in row) for row in rows)
        tqdm.write(f"\n{self.score}\n{table}\n{verdict}\n{learned}\n")
        validation = {
            arm: [self.validation_curve(run_folder(self.out, arm, seed)) for seed in self.plan.seeds] for arm in ARMS
        }
        page = self.out / "index.html"
        write_page(
            page,
            self.title,
            {
                "What was run": self.what_was_run(minutes),
                "What the encoder learned without labels": f'<p class="verdict">{learned}</p>',
                self.score: html_table(rows[0], rows[1:]) + f'<p class="verdict">{verdict}</p>',
                "Curves": curves(self.pretraining_curves(), validation),
                "Test images: truth (green) and prediction (dashed)": contour_sheet(
                    self.pictures(), self.out / "contours.png"
                ),
            },
        )
        return page

    def results(self) -> tuple[list[list[str]], str]:
        """Mean Dice per run over the test cases, per class, and what the paired interval says of the first class."""
        values: dict[tuple[str, str], list[float]] = {}
        for arm in ARMS:
            for seed in self.plan.seeds:
                with (run_folder(self.out, arm, seed) / "test" / "metrics.csv").open() as file:
                    records = list(csv.DictReader(file))
                for name in self.classes:
                    dice = [float(record["dice"]) for record in records if record["class"] == name]
                    values.setdefault((arm, name), []).append(float(np.mean(dice)))
        rows = [["arm", "class", *(f"seed {seed}" for seed in self.plan.seeds), "mean", "SD"]]
        for (arm, name), runs in sorted(values.items(), key=lambda item: item[0][1]):
            spread = float(np.std(runs, ddof=1)) if len(runs) > 1 else float("nan")
            rows.append([arm, name, *(f"{run:.3f}" for run in runs), f"{np.mean(runs):.3f}", f"{spread:.3f}"])
        first = self.classes[0]
        if len(self.plan.seeds) < 2:
            return rows, f"{first.capitalize()}: one seed shows nothing; run at least two."
        difference = paired_difference(values[ARMS[0], first], values[ARMS[1], first])
        return rows, f"{first.capitalize()}: {difference.verdict(*ARMS)}"


def _submitted(pool: ProcessPoolExecutor, step: Step) -> Future[None]:
    function, arguments = step
    return pool.submit(function, *arguments)


def run_demo(out: Path, domain: str = "ct") -> Path:
    """Run the demo of a domain with its default plan.

    Args:
        out: folder for everything it writes.
        domain: "ct" or "endoscopy".

    Returns:
        The HTML page.
    """
    if domain == "ct":
        from monai_ssl_transfer.demo.ct import CTDemo

        return CTDemo(out).run()
    if domain == "endoscopy":
        from monai_ssl_transfer.demo.endoscopy import EndoscopyDemo

        return EndoscopyDemo(out).run()
    raise DataError(f"there is no demo of '{domain}': choose ct or endoscopy.")
