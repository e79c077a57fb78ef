"""Nearest neighbours on labelled slices while pretraining runs: does the encoder get better at all?"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Events
from torch import nn
from torch.nn import functional

from monai_ssl_transfer.data.order import epoch_order
from monai_ssl_transfer.data.slices import SliceDataset
from monai_ssl_transfer.engines.checkpoints.fingerprint import file_hash
from monai_ssl_transfer.engines.embedding.embed import WholeSliceDataset, embed
from monai_ssl_transfer.engines.embedding.nearest import nearest, weighted_vote
from monai_ssl_transfer.engines.pretraining.trainer import PretrainingTrainer
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.weights import load_encoder_weights

logger = logging.getLogger(__name__)

_UNKNOWN_BODY_PART = 255


@dataclass(frozen=True)
class KNNOptions:
    """Settings of the vote.

    Args:
        neighbours: how many vote.
        temperature: a neighbour's weight is exp(cosine similarity / temperature).
        interval: epochs between two evaluations.
        bank: at most so many labelled slices are looked up.
        queries: at most so many slices are classified.
        image_size: side in pixels to which slices are resized.
        batch_size: slices per forward pass.
    """

    neighbours: int = 20
    temperature: float = 0.07
    interval: int = 1
    bank: int = 20_000
    queries: int = 4_000
    image_size: int = 224
    batch_size: int = 64


@dataclass(frozen=True)
class LabelledEmbeddings:
    """What is looked up.

    Args:
        embeddings: (N, D) L2-normalised.
        labels: (N,) int64 in ``range(classes)``.
        patients: (N,) int64; a query never sees its own patient.
    """

    embeddings: torch.Tensor
    labels: torch.Tensor
    patients: torch.Tensor


def knn_classify(
    bank: LabelledEmbeddings,
    queries: torch.Tensor,
    patients: torch.Tensor,
    classes: int,
    options: KNNOptions | None = None,
) -> torch.Tensor:
    """Weighted vote of the nearest neighbours by cosine (Wu et al. 2018, section 3.4), in tiles of bounded memory.

    Args:
        bank: what is looked up.
        queries: (Q, D) L2-normalised.
        patients: (Q,) int64, patient of each query, who is left out of its vote.
        classes: number of classes.
        options: neighbours and temperature.

    Returns:
        (Q,) int64 predicted classes.

    Raises:
        DataError: a query has no neighbour of another patient.
    """
    options = options or KNNOptions()
    embeddings, owners = bank.embeddings, bank.patients
    similarity, place = nearest(embeddings, queries, options.neighbours, owners, patients, cosine=False)
    return weighted_vote(similarity, bank.labels[place], classes, options.temperature).argmax(dim=1)


def answerable(labels: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Labelled slices whose class another patient has too; without one, no neighbour can give the right answer.

    Args:
        labels: (N,) classes, negative for unlabelled.
        patients: (N,) patient numbers.

    Returns:
        Their numbers, sorted.
    """
    shared = [one for one in np.unique(labels[labels >= 0]) if len(np.unique(patients[labels == one])) > 1]
    return np.flatnonzero(np.isin(labels, shared))


class OnlineKNNHandler:
    """Classifies labelled slices of the store by their nearest neighbours at the end of an epoch.

    A slice is never classified by slices of its own patient, and classes of one patient alone are not asked for (the
    log says how many). ``engine.state.metrics`` gets ``knn_accuracy`` and ``knn_balanced_accuracy``.
    Without two classes that two patients have, the log says so and the evaluation is left out.

    Args:
        encoder: gives (B, D); its mode is put back after the evaluation.
        store: a ``SliceStore`` or the path of one.
        channels: "windows", "single" or "neighbours" for CT slices, "rgb" for frames, whose groups are the patients.
        target: ``"label"``, ``"body_part"``, or ``"auto"``: labels where there are any.
        options: settings of the vote.
        seed: which slices, where there are more than the options allow.
    """

    def __init__(
        self,
        encoder: nn.Module,
        store: Any,
        channels: str = "windows",
        target: str = "auto",
        options: KNNOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.encoder = encoder
        self.channels = channels
        self.options = options or KNNOptions()
        self.store = SliceDataset(store, channels).store
        self.labels = _targets(self.store.index, target)
        self.patients = np.asarray(self.store.patient_numbers()).astype(np.int64)
        self.bank = _some(np.flatnonzero(self.labels >= 0), self.options.bank, seed)
        kept = np.full_like(self.labels, -1)
        kept[self.bank] = self.labels[self.bank]
        self.queries = _some(answerable(kept, self.patients), self.options.queries, seed)

    @property
    def possible(self) -> bool:
        """Whether there are two classes that two patients have."""
        return len(np.unique(self.labels[self.queries])) > 1

    def attach(self, engine: PretrainingTrainer) -> None:
        """Register on the trainer (on the first process only)."""
        if idist.get_rank() > 0:
            return
        if self.possible:
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.options.interval), self.evaluate)
            left_out = len(np.setdiff1d(np.unique(self.labels[self.bank]), np.unique(self.labels[self.queries])))
            logger.info("online kNN: %d slices; %d classes of one patient alone", len(self.queries), left_out)
        else:
            logger.info("online kNN is left out: it needs two classes that two patients have")

    def evaluate(self, engine: PretrainingTrainer) -> None:
        """Write the metrics of the encoder as it is now."""
        engine.state.metrics |= self.scores(engine.state.device)

    def scores(self, device: torch.device | str) -> dict[str, float]:
        """Embed bank and queries, vote, compare with the truth.

        Args:
            device: where the encoder lives.

        Returns:
            ``knn_accuracy`` and ``knn_balanced_accuracy`` (mean recall over the classes among the queries).

        Raises:
            DataError: when the store has no labels to compare with.
        """
        if not self.possible:
            raise DataError("kNN needs two classes that two patients have; ingest more scans, or give --labels.")
        embeddings = self._embedded(self.bank, device)
        classes, numbers = np.unique(self.labels[self.bank], return_inverse=True)
        patients = torch.from_numpy(self.patients).to(device)
        bank = LabelledEmbeddings(embeddings, torch.from_numpy(numbers).to(device), patients[self.bank])
        # the queries are a part of the bank
        queries = embeddings[np.searchsorted(self.bank, self.queries)]
        votes = knn_classify(bank, queries, patients[self.queries], len(classes), self.options)
        predicted, truth = classes[votes.cpu().numpy()], self.labels[self.queries]
        recalls = [float(np.mean(predicted[truth == one] == one)) for one in np.unique(truth)]
        return {
            "knn_accuracy": float(np.mean(predicted == truth)),
            "knn_balanced_accuracy": float(np.mean(recalls)),
        }

    def _embedded(self, numbers: np.ndarray, device: torch.device | str) -> torch.Tensor:
        dataset = WholeSliceDataset(self.store, self.channels, self.options.image_size, numbers)
        return functional.normalize(embed(self.encoder, dataset, device, self.options.batch_size), dim=1)


def write_scores(handler: OnlineKNNHandler, weights: str | Path, device: torch.device | str, file: str | Path) -> None:
    """Load an encoder's weights, judge it by kNN and write the scores as JSON (what ``evaluate.json`` runs).

    Raises:
        WeightsError: when the weights do not fit the encoder.
    """
    logger.info("%s", load_encoder_weights(handler.encoder, weights).table())
    scores = {**handler.scores(device), "queries": len(handler.queries), "bank": len(handler.bank)}
    facts = {"encoder_sha256": file_hash(weights), "store": handler.store.content_hash}
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(json.dumps({**scores, **facts}, indent=2) + "\n")
    logger.info("%s: %s", file, scores)


def _targets(index: np.ndarray, target: str) -> np.ndarray:
    labels = index["label"].astype(np.int64)
    if target == "label" or (target == "auto" and len(np.unique(labels[labels >= 0])) > 1):
        return labels
    parts = index["body_part"].astype(np.int64)
    return np.where(parts == _UNKNOWN_BODY_PART, -1, parts)


def _some(numbers: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most so many of these numbers, spread over all of them."""
    if len(numbers) <= most:
        return numbers
    return np.sort(numbers[epoch_order(len(numbers), seed, 0)(np.arange(most))])
