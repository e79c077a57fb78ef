"""The labelled images of `learns.py`: what a pretrained encoder is asked about, and how its answers are judged.

`pictures`: the six classes of Medical MNIST. Two thirds of the pictures are pretrained on; of these, `SHOTS` per class
are labelled, drawn `DRAWS` times. The other third is asked about, each picture `COPIES` times with another crop,
brightness and contrast, since with many labels and untouched pictures raw pixels already know nearly all.

`slices`: which third of which scan is a CT slice from? Nine scans of nine patients are 27 classes; a third of their
slices is asked about, cropped and changed as the pictures are, the labelled ones are drawn from the others. Pretraining
sees all scans, these too, without labels.

`phantoms`: in which third of the trunk is a slice of twelve generated patients, judged by the other patients' slices?
For when there are no real data.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.engines.embedding.embed import WholeSliceDataset
from monai_ssl_transfer.engines.pretraining.knn import KNNOptions, LabelledEmbeddings, knn_classify

SHOTS, DRAWS, COPIES, HELD_OUT = 3, 40, 3, 3
NEIGHBOURS = {"pictures": 3, "slices": 3, "phantoms": 10}
SCANS = (
    *(f"lits-layout/volume-{number}.nii.gz" for number in (0, 1017, 2001)),
    *(f"sts-layout/volume-{number}.nii.gz" for number in (3002, 3008, 3012, 3019, 3024, 3025)),
)
"""Of nine patients, from chest to legs, 47 to 119 slices each."""


@dataclass(frozen=True)
class Question:
    """One vote: these queries are answered from this bank.

    Args:
        bank: numbers of the labelled images.
        queries: numbers of the images asked about.
    """

    bank: Tensor
    queries: Tensor


@dataclass(frozen=True)
class Task:
    """Images with labels and the votes that judge an embedding of them.

    Args:
        name: "pictures", "slices" or "phantoms".
        store: what is pretrained on.
        held_out: every so many-th image of the store is kept from pretraining; 0 keeps none.
        channels: as the bundle has it.
        images: `(N, C, s, s)` as an encoder sees them.
        labels: `(N,)` int64.
        patients: `(N,)` int64; none answers for himself.
        questions: the votes; the accuracy is the mean over them.
    """

    name: str
    store: Path
    held_out: int
    channels: str
    images: Tensor
    labels: Tensor
    patients: Tensor
    questions: list[Question]

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    @property
    def pretrained_on(self) -> np.ndarray:
        """Numbers of the images in the store that pretraining sees."""
        numbers = np.arange(len(SliceStore(self.store)))
        return numbers[numbers % self.held_out != 0] if self.held_out else numbers

    def accuracy(self, features: Tensor) -> float:
        """Balanced accuracy of the nearest neighbours, mean over the questions.

        Args:
            features: `(N, D)`. The bank's mean is subtracted before they are normalised: without it, the features of
                an untrained network differ by less than a thousandth of their length.
        """
        options = KNNOptions(neighbours=NEIGHBOURS[self.name])
        found = []
        for question in self.questions:
            centre = features[question.bank].mean(0)
            bank, queries = (
                functional.normalize(features[n] - centre, dim=1) for n in (question.bank, question.queries)
            )
            known = LabelledEmbeddings(bank, self.labels[question.bank], self.patients[question.bank])
            votes = knn_classify(known, queries, self.patients[question.queries], self.classes, options)
            truth = self.labels[question.queries]
            found.append(np.mean([float((votes[truth == c] == c).float().mean()) for c in truth.unique()]))
        return float(np.mean(found))

    def pixels(self) -> dict[str, float]:
        """Accuracy of raw pixels: as they are and shrunk to 16 x 16, with and without each image's own mean."""
        found = {}
        for side in (self.images.shape[-1], 16):
            flat = functional.interpolate(self.images, size=side, mode="bilinear", antialias=True).flatten(1)
            found[f"{side} x {side}"] = self.accuracy(flat)
            found[f"{side} x {side}, mean removed"] = self.accuracy(flat - flat.mean(1, keepdim=True))
        return found

    @torch.no_grad()
    def judge(self, encoder: nn.Module) -> tuple[float, float]:
        """Accuracy of an encoder in evaluation mode, and the effective rank of its embeddings."""
        training = encoder.training
        device = next(encoder.parameters()).device
        encoder.eval()
        features = torch.cat([encoder(part.to(device)).float().cpu() for part in self.images.split(64)])
        encoder.train(training)
        return self.accuracy(features), effective_rank(features)


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the centred features (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals((features - features.mean(0)).double())
    share = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))


def distorted(image: Tensor, generator: torch.Generator) -> Tensor:
    """A crop of 20 to 100 % of the area, flipped or not, with another brightness and contrast: as the views are.

    Args:
        image: `(1, C, H, W)`, normalised with a standard deviation near a quarter of the range.
        generator: source of the six random numbers.
    """
    area, right, down, flip, contrast, level = torch.rand(6, generator=generator).tolist()
    scale = (0.2 + 0.8 * area) ** 0.5
    free = 1 - scale
    theta = torch.tensor(
        [[-scale if flip < 0.5 else scale, 0, free * (2 * right - 1)], [0, scale, free * (2 * down - 1)]]
    )
    grid = functional.affine_grid(theta[None], list(image.shape), align_corners=False)
    warped = functional.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
    return (warped - warped.mean()) * (0.6 + 0.8 * contrast) + warped.mean() + (level - 0.5) * 1.2


def command(*arguments: str) -> None:
    """Run `ssl-transfer` as a user does."""
    subprocess.run(
        [sys.executable, "-m", "monai_ssl_transfer.cli", *arguments], check=True, capture_output=True, text=True
    )


def _made(store: Path, *arguments: str) -> Path:
    """Run `ssl-transfer`, unless the store is there."""
    if not (store / "store.json").exists():
        command(*arguments)
    return store


def pictures(work: Path, data: Path, image_size: int) -> Task:
    """Few-shot classes of Medical MNIST."""
    source, table, store = data / "medical-mnist-64", work / "classes.csv", work / "pictures"
    with table.open("w", newline="") as file:
        rows = [(str(path.relative_to(source)), path.parent.name) for path in sorted(source.glob("*/*.jpeg"))]
        csv.writer(file).writerows([("file", "class"), *rows])
    ingest = ("ingest", "frames", str(source), "--out", str(store), "--labels", str(table), "--workers", "2")
    _made(store, *ingest, "--near-duplicates", "-1")
    images, labels = _whole(store, "rgb", image_size)
    return _few_shot("pictures", store, HELD_OUT, "rgb", images, labels)


def slices(work: Path, data: Path, image_size: int) -> Task:
    """Few-shot thirds of nine scans."""
    store = work / "slices"
    for folder in ("ct_nifti", "ct_dicom"):
        if not (work / "slices.private").exists() or folder == "ct_dicom":
            command("ingest", "ct", str(data / folder), "--out", str(store), "--workers", "2")
    lines = (work / "slices.private" / "files.jsonl").read_text().splitlines()
    series = {record["file"]: record["series"] for record in map(json.loads, lines)}
    images, labels, scans = _by_thirds(store, [series[file] for file in SCANS], image_size)
    return _few_shot("slices", store, 0, "windows", images, 3 * scans + labels)


def phantoms(work: Path, _: Path | None, image_size: int) -> Task:
    """Thirds of the scans of twelve generated patients; twelve other patients are only pretrained on."""
    source, store = work / "generated", work / "phantoms"
    _made(store, "phantom", "ct", "--out", str(source), "--cases", "24", "--size", "96")
    _made(store, "ingest", "ct", str(source), "--out", str(store), "--workers", "2")
    lines = (work / "phantoms.private" / "files.jsonl").read_text().splitlines()
    found = [record["series"] for record in map(json.loads, lines) if record["file"].startswith("lits/volume")]
    return _thirds("phantoms", store, found, image_size)


def _whole(path: Path, channels: str, image_size: int, numbers: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
    """Images as an encoder sees them, and their labels in the store."""
    store = SliceStore(path)
    numbers = np.arange(len(store)) if numbers is None else numbers
    dataset = WholeSliceDataset(store, channels, image_size, numbers)
    images = torch.stack([dataset[position]["image"] for position in range(len(dataset))])
    return images, torch.from_numpy(store.index["label"][numbers].astype(np.int64))


def _by_thirds(path: Path, keys: list[str], image_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """All slices of these series, the third of its series that each is from, and the number of the series."""
    store = SliceStore(path)
    ranges = [store.series_range(i) for i in range(store.series_count) if store.series(i).series_key in keys]
    images, _ = _whole(path, "windows", image_size, np.concatenate([np.array(own) for own in ranges]))
    thirds = torch.cat([torch.arange(len(own)) * 3 // len(own) for own in ranges])
    return images, thirds, torch.cat([torch.full((len(own),), number) for number, own in enumerate(ranges)])


def _few_shot(name: str, store: Path, held_out: int, channels: str, images: Tensor, labels: Tensor) -> Task:
    """Every `HELD_OUT`-th image is asked about, `COPIES` times, by draws of `SHOTS` labelled others per class."""
    held = torch.arange(len(images)) % HELD_OUT == 0
    generator = torch.Generator().manual_seed(0)
    queries = [distorted(image[None], generator) for image in images[held] for _ in range(COPIES)]
    questions = []
    for _ in range(DRAWS):
        order = torch.randperm(len(images), generator=generator)
        order = order[~held[order]]
        shots = torch.cat([order[labels[order] == one][:SHOTS] for one in labels.unique()])
        questions.append(Question(shots, torch.arange(len(images), len(images) + len(queries))))
    labels = torch.cat([labels, labels[held].repeat_interleave(COPIES)])
    nobody_twice = torch.arange(len(labels))
    return Task(name, store, held_out, channels, torch.cat([images, *queries]), labels, nobody_twice, questions)


def _thirds(name: str, path: Path, keys: list[str], image_size: int) -> Task:
    """Every slice of these series is asked about, with its third of the series as label."""
    images, labels, patients = _by_thirds(path, keys, image_size)
    everything = torch.arange(len(labels))
    return Task(name, path, 0, "windows", images, labels, patients, [Question(everything, everything)])


TASKS = {"pictures": pictures, "slices": slices, "phantoms": phantoms}
