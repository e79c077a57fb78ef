"""The demo on generated endoscopy: videos to learn from, polyps to segment."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from monai_ssl_transfer.data.endoscopy.frames import read_frame, read_mask
from monai_ssl_transfer.data.endoscopy.hyperkvasir import finding_cases
from monai_ssl_transfer.data.endoscopy.ingest import ingest_frames
from monai_ssl_transfer.data.phantoms.endoscopy_layouts import write_hyperkvasir, write_kvasir_seg
from monai_ssl_transfer.data.phantoms.endoscopy_videos import write_unlabelled
from monai_ssl_transfer.demo.endoscopy_steps import pretrain, transfer
from monai_ssl_transfer.demo.pictures import LabelledPicture
from monai_ssl_transfer.demo.plan import ARMS, EndoscopyPlan
from monai_ssl_transfer.demo.run import Demo, Step
from monai_ssl_transfer.demo.steps import run_folder

EACH_FILE = r"([^/]+)\.jpg$"
"""Group of a generated landmark: every picture shows another patient."""


class EndoscopyDemo(Demo):
    """Polyps from few labelled photographs, with and without an encoder pretrained on unlabelled videos.

    Args:
        out: folder for everything.
        plan: sizes.
    """

    title = "From unlabelled endoscopy videos to a segmented polyp"
    classes = ("polyp",)
    score = "Dice per test photograph"
    plan: EndoscopyPlan

    def __init__(self, out: Path, plan: EndoscopyPlan | None = None) -> None:
        super().__init__(out, plan or EndoscopyPlan())
        self.phantoms = out / "phantoms"

    def data(self) -> None:
        """Videos into a store, landmarks into another that judges the encoder, polyps in the layout of Kvasir-SEG."""
        plan = self.plan
        write_unlabelled(self.phantoms / "unlabelled", self.phantoms / "videos", plan.videos, plan.frames, plan.size)
        write_kvasir_seg(self.phantoms / "kvasir-seg", plan.labelled, plan.size, seed=1)
        write_hyperkvasir(self.phantoms / "hyperkvasir", plan.landmarks, 5, 0, 0, plan.size, seed=2)
        report = ingest_frames(self.phantoms / "unlabelled", self.out / "store", workers=2)
        tqdm.write(report.summary())
        images, labels = self.phantoms / "hyperkvasir" / "labeled-images", self.phantoms / "landmarks.csv"
        with labels.open("w", newline="") as file:
            rows = [(case["image"], case["label"]) for case in finding_cases(images, "landmarks")]
            csv.writer(file).writerows([("file", "label"), *rows])
        ingest_frames(images, self.out / "landmarks", workers=2, group_pattern=EACH_FILE, labels_csv=labels)

    def pretraining_step(self) -> Step:
        """SimCLR on the videos."""
        return pretrain, (self.out, self.plan)

    def transfer_step(self, arm: str, seed: int) -> Step:
        """Fine-tuning and test of one run."""
        return transfer, (self.out, self.plan, arm, seed)

    def _parts(self) -> dict[str, list[str]]:
        content = json.loads((run_folder(self.out, ARMS[0], self.plan.seeds[0]) / "frames.json").read_text())
        return {part: content[part] for part in ("train", "validation", "test")}

    def what_was_run(self, minutes: float) -> str:
        """Sizes and conditions."""
        train, validation, test = (len(names) for names in self._parts().values())
        return (
            f"<p>{self.plan.videos} generated videos of {self.plan.frames} frames. SimCLR on them for "
            f"{self.plan.pretraining['epochs']} epochs (ResNet18); then a U-Net on {train} labelled photographs of "
            f"other patients, chosen on {validation} and tested on {test} others, at native resolution. Both arms have "
            f"the same network, data, steps and seeds. {minutes:.1f} minutes.</p>"
        )

    def what_the_encoder_learned(self) -> str:
        """Anatomical landmark by nearest neighbours, before and after."""
        scores = json.loads((self.out / "pretraining" / "knn.json").read_text())
        before, after = (scores[name]["knn_balanced_accuracy"] for name in ("random", "pretrained"))
        return (
            "Anatomical landmark of a photograph from its nearest neighbours in other patients (one of six, balanced "
            f"accuracy, chance 0.17): {before:.2f} with random weights, {after:.2f} after pretraining."
        )

    def pretraining_curves(self) -> dict[str, list[float]]:
        """Loss and effective rank."""
        lines = (self.out / "pretraining" / "metrics.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        names = {"loss": "loss", "effective rank": "effective_rank"}
        return {title: [record[name] for record in records if name in record] for title, name in names.items()}

    def validation_curve(self, folder: Path) -> list[float]:
        """Mean Dice of the polyps."""
        lines = (folder / "validation.jsonl").read_text().splitlines()
        return [json.loads(line)["mean_dice"] for line in lines]

    def pictures(self) -> list[LabelledPicture]:
        """The first test photographs."""
        return [self._picture(name) for name in self._parts()["test"][: self.plan.shown]]

    def _picture(self, name: str) -> LabelledPicture:
        folder = self.phantoms / "kvasir-seg"
        truth = read_mask(folder / "masks" / f"{name}.jpg").astype(np.uint8)
        masks = {arm: self._mask(arm, name) for arm in ARMS}
        return LabelledPicture(name[:8], read_frame(folder / "images" / f"{name}.jpg"), truth, masks)

    def _mask(self, arm: str, name: str) -> np.ndarray:
        folder = run_folder(self.out, arm, self.plan.seeds[0]) / "masks"
        return read_mask(folder / f"{name}_mask.png").astype(np.uint8)
