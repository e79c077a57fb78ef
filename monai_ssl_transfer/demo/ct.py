"""The demo on generated CT: body regions to learn from, livers to segment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from monai_ssl_transfer.data.ct.ingest import ingest_ct
from monai_ssl_transfer.data.ct.layouts import liver_cases
from monai_ssl_transfer.data.ct.nifti import read_nifti_ct, read_nifti_labels
from monai_ssl_transfer.data.phantoms.ct_dataset import write_phantom_dataset
from monai_ssl_transfer.demo.ct_steps import pretrain, transfer
from monai_ssl_transfer.demo.pictures import LabelledPicture
from monai_ssl_transfer.demo.plan import ARMS, CTPlan
from monai_ssl_transfer.demo.run import Demo, Step
from monai_ssl_transfer.demo.steps import run_folder

SOFT_TISSUE = (-160.0, 240.0)
"""HU that are shown as black and as white."""


class CTDemo(Demo):
    """Liver and tumour from two labelled cases, with and without an encoder pretrained on unlabelled scans.

    Args:
        out: folder for everything.
        plan: sizes.
    """

    title = "From unlabelled scans to a segmented liver"
    classes = ("liver", "tumour")
    score = "Dice on the test cases"
    plan: CTPlan

    def __init__(self, out: Path, plan: CTPlan | None = None) -> None:
        super().__init__(out, plan or CTPlan())
        self.lits = out / "phantoms" / "lits"
        self.parts: dict[str, list[str]] = {}

    def data(self) -> None:
        """Half of the patients without labels into the store, half as a labelled LiTS folder."""
        write_phantom_dataset(self.out / "phantoms", cases=self.plan.cases, size=self.plan.size)
        report = ingest_ct(self.out / "phantoms" / "unlabelled", self.out / "store", workers=2)
        tqdm.write(report.summary())
        self.parts = self.plan.divide([str(case["case"]) for case in liver_cases(self.lits)])

    def pretraining_step(self) -> Step:
        """SimCLR on the store."""
        return pretrain, (self.out, self.plan)

    def transfer_step(self, arm: str, seed: int) -> Step:
        """Fine-tuning and test of one run."""
        return transfer, (self.out, self.plan, self.parts, arm, seed)

    def shown_cases(self) -> list[dict[str, Any]]:
        """Test cases that the page shows."""
        return [case for case in liver_cases(self.lits) if str(case["case"]) in self.parts["test"][: self.plan.shown]]

    def what_was_run(self, minutes: float) -> str:
        """Sizes and conditions."""
        train, validation, test = (len(self.parts[part]) for part in ("train", "validation", "test"))
        return (
            f"<p>{self.plan.cases} generated patients. SimCLR on the unlabelled half for "
            f"{self.plan.pretraining['epochs']} epochs (ResNet18); then a U-Net on {train} labelled cases, "
            f"chosen on {validation} and tested on {test} others, per volume. Both arms have the same network, "
            f"data, steps and seeds. {minutes:.1f} minutes.</p>"
        )

    def what_the_encoder_learned(self) -> str:
        """Body region by nearest neighbours, before and after."""
        before = json.loads((self.out / "pretraining" / "random_knn.json").read_text())["knn_balanced_accuracy"]
        after = self._records()[-1]["knn_balanced_accuracy"]
        return (
            "Body region of a slice from its nearest neighbours in other patients (balanced accuracy, chance 0.17): "
            f"{before:.2f} with random weights, {after:.2f} after pretraining."
        )

    def _records(self) -> list[dict[str, float]]:
        lines = (self.out / "pretraining" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def pretraining_curves(self) -> dict[str, list[float]]:
        """Loss and kNN accuracy."""
        records = self._records()
        return {
            "loss": [record["loss"] for record in records],
            "kNN of the body region": [record["knn_balanced_accuracy"] for record in records],
        }

    def validation_curve(self, folder: Path) -> list[float]:
        """Dice of the liver."""
        lines = (folder / "validation.jsonl").read_text().splitlines()
        return [json.loads(line)["liver_dice"] for line in lines]

    def pictures(self) -> list[LabelledPicture]:
        """The slice of each shown case that has most liver."""
        found = []
        for case in self.shown_cases():
            volume = read_nifti_ct(Path(case["image"]))
            truth = read_nifti_labels(Path(case["label"]), volume)
            number = int((truth > 0).sum(axis=(1, 2)).argmax())
            masks = {arm: self._mask(arm, Path(case["image"]))[number] for arm in ARMS}
            low, high = SOFT_TISSUE
            grey = np.clip((volume.hu[number] - low) / (high - low), 0, 1)
            aspect = volume.spacing[0] / volume.spacing[1]
            found.append(LabelledPicture(f"case {case['case']}", grey, truth[number], masks, aspect))
        return found

    def _mask(self, arm: str, image: Path) -> np.ndarray:
        name = image.name.removesuffix(".gz").removesuffix(".nii")
        return read_nifti_labels(run_folder(self.out, arm, self.plan.seeds[0]) / "masks" / f"{name}_seg.nii.gz", image)
