"""Which of several encoders are promising for a task: kNN, LogME and H-score of their embeddings, no training."""

from __future__ import annotations

import csv
import io
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes import PROBES
from monai_ssl_transfer.evaluation.probes.protocol import score_name, validation_score
from monai_ssl_transfer.evaluation.probes.task import EncoderSource, TaskSource
from monai_ssl_transfer.evaluation.probes.task_vectors import embedder
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors

logger = logging.getLogger(__name__)

SCORES = ("knn", "logme", "h_score")
WORTH = (
    "Each score looks at frozen embeddings: kNN is judged on the validation cases, LogME and H-score on the training "
    "cases. None of them trains anything, so an encoder that fine-tuning would repair is rated too low, and "
    "differences between close encoders mean little. Use the order to leave out candidates that all three put last, "
    "then fine-tune the rest; LogME and H-score of embeddings of different lengths are comparable only roughly."
)


def rank_encoders(
    task: TaskSource,
    encoders: Sequence[EncoderSource],
    cache: Path | None,
    device: str = "cpu",
    fraction: float = 1.0,
    seed: int = 0,
    average: str = "none",
) -> dict[str, Any]:
    """Score encoders on a task without fine-tuning any.

    Args:
        task: a classification bundle.
        encoders: candidates, each with a name of its own.
        cache: folder of embeddings, see `cache_folder`; None keeps nothing.
        device: where to embed.
        fraction: share of the training patients or scenes that is used.
        seed: of that share.
        average: "volume" scores volumes.

    Returns:
        {"task": bundle, "scores": {name: {"knn", "logme", "h_score"}}, ...}; the highest mean rank first, larger is
        better for each score.

    Raises:
        DataError: no encoder, two of one name, or what is wrong with the data.
        WeightsError: something is wrong with an encoder.
    """
    names = [one.name for one in encoders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        problem = f"two encoders are called '{twice[0]}'" if twice else "there is no encoder to rank"
        raise DataError(f"{problem}: give each as NAME=FILE with --encoders.")
    scores: dict[str, dict[str, float]] = {}
    facts: dict[str, Any] = {}
    with embedder(task, cache, device, fraction, seed, average) as found:
        for encoder in encoders:
            begun = time.monotonic()
            vectors = found.embed(encoder).vectors
            scores[encoder.name] = scores_of(vectors["train"], vectors["validation"], seed)
            facts[encoder.name] = {
                "file": None if encoder.file is None else encoder.file.name,
                "length": int(vectors["train"].vectors.shape[1]),
                "seconds": round(time.monotonic() - begun, 1),
            }
            logger.info("%s: %s", encoder.name, scores[encoder.name])
    ranks = mean_ranks(scores)
    order = sorted(scores, key=lambda name: (ranks[name], -scores[name]["knn"]))
    return {
        "task": Path(task.bundle).name,
        "knn_is": score_name(vectors["train"]),
        "label_fraction": fraction,
        "seed": seed,
        "cases": {part: len(rows) for part, rows in vectors.items() if part != "test"},
        "scores": {name: scores[name] for name in order},
        "mean_rank": {name: ranks[name] for name in order},
        "encoders": {name: facts[name] for name in order},
        "worth": WORTH,
    }


def scores_of(train: LabelledVectors, validation: LabelledVectors, seed: int = 0) -> dict[str, float]:
    """kNN on validation, LogME and H-score on training embeddings; larger is better for each."""
    from monai_ssl_transfer.evaluation.transferability.h_score import h_score
    from monai_ssl_transfer.evaluation.transferability.logme import logme

    outcome = PROBES["knn"](neighbours=(KNN_NEIGHBOURS,)).predict(train, validation, validation, seed)
    knn = validation_score(outcome.probabilities, validation)
    if knn is None:
        raise DataError("the validation cases show no finding that kNN could be judged on: raise validation_fraction.")
    return {
        "knn": knn,
        "logme": float(logme(train.vectors, train.targets)),
        "h_score": float(h_score(train.vectors, train.targets)),
    }


KNN_NEIGHBOURS = 20
"""One number and no choice: a choice on the cases that judge would flatter. DINO's (Caron et al. 2021)."""


def mean_ranks(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """Mean over the three scores of an encoder's place, 1 for the best; encoders of one value share their places."""
    found = dict.fromkeys(scores, 0.0)
    for score in SCORES:
        for name, own in scores.items():
            better = sum(other[score] > own[score] for other in scores.values())
            same = sum(other[score] == own[score] for other in scores.values())
            found[name] += (better + (same + 1) / 2) / len(SCORES)
    return {name: round(rank, 3) for name, rank in found.items()}


def rank_table(ranking: dict[str, Any]) -> str:
    """The ranking as a Markdown table, with what it is worth."""
    head = ["encoder", f"kNN ({ranking['knn_is'].replace('_', ' ')})", "LogME", "H-score", "mean rank"]
    rows = [
        f"| {name} | {own['knn']:.3f} | {own['logme']:.3f} | {own['h_score']:.2f} | {ranking['mean_rank'][name]:.2f} |"
        for name, own in ranking["scores"].items()
    ]
    counts = ranking["cases"]
    title = f"{ranking['task']}: {counts['train']} training and {counts['validation']} validation cases"
    lines = [title, "", f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows, "", ranking["worth"]]
    return "\n".join(lines) + "\n"


def write_ranking(ranking: dict[str, Any], out: Path) -> Path:
    """Write ``ranking.json``, ``ranking.csv`` and ``ranking.md``.

    Args:
        ranking: of `rank_encoders`.
        out: made if it does not exist.

    Returns:
        ``ranking.json``.
    """
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["encoder", *SCORES, "mean_rank", "length", "seconds"])
    for name, own in ranking["scores"].items():
        facts = ranking["encoders"][name]
        places = [ranking["mean_rank"][name], facts["length"], facts["seconds"]]
        writer.writerow([name, *(repr(own[score]) for score in SCORES), *places])
    texts = {"csv": table.getvalue(), "md": rank_table(ranking), "json": json.dumps(ranking, indent=1) + "\n"}
    for suffix, text in texts.items():
        write_durably(out / f"ranking.{suffix}", lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    return out / "ranking.json"
