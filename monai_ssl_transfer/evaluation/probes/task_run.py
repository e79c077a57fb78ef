"""One probe of one encoder on one task, with the files of the bundle's own evaluation."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ignite.engine import Engine

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.engines.embedding.cache import cache_folder
from monai_ssl_transfer.engines.records.versions import versions
from monai_ssl_transfer.evaluation.photograph_predictions import PREDICTIONS, path_below
from monai_ssl_transfer.evaluation.probes.protocol import Probe, ProbeOutcome, score_name
from monai_ssl_transfer.evaluation.probes.task import EncoderSource, TaskSource, task_parser
from monai_ssl_transfer.evaluation.probes.task_vectors import EmbeddedTask, TaskEmbedder, channels_stated
from monai_ssl_transfer.evaluation.result_names import DRAWS, JUDGED_FILE
from monai_ssl_transfer.evaluation.robustness import JudgedCase
from monai_ssl_transfer.evaluation.robustness_grid import write_cases

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

    from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors

logger = logging.getLogger(__name__)

PROBE_FILE = "probe.json"
_SMALLEST = 1e-30
"""In place of a probability of 0, whose logarithm no metric could take."""


def run_probe(
    task: TaskSource,
    encoder: EncoderSource,
    probe: Probe,
    out: Path,
    seed: int = 0,
    fraction: float = 1.0,
    cache: Path | str | None = "",
    device: str = "cpu",
    average: str = "none",
) -> Path:
    """Probe an encoder on a task.

    Args:
        task: a classification bundle.
        encoder: a file or random weights.
        probe: one of `PROBES`.
        out: folder for ``metrics.csv``, ``summary.json``, ``predictions.csv``, ``judged.csv``, the split and, last,
            ``probe.json``; where cases are drawn repeatedly, these files are of the first draw, and ``draws/N`` has the
            figures and judged cases of every one.
        seed: of the label fraction and of whatever the probe draws.
        fraction: share of the training patients or scenes that is used.
        cache: folder of embeddings, see `cache_folder`.
        device: where to embed.
        average: "volume" judges volumes, by the mean over their slices.

    Returns:
        ``probe.json``.

    Raises:
        DataError: the bundle does not classify, or something is wrong with the data.
        WeightsError: something is wrong with the encoder.
    """
    parser = task_parser(task, out, fraction, seed)
    return probe_parser(parser, encoder, probe, out, cache_folder(cache), device, average, channels_stated(task))


def probe_parser(
    parser: ConfigParser,
    source: EncoderSource,
    probe: Probe,
    out: Path,
    cache: Path | None,
    device: str = "cpu",
    average: str = "none",
    stated: bool = True,
) -> Path:
    """As `run_probe`, for a configuration that is there already; see `TaskEmbedder` for the arguments.

    Returns:
        ``probe.json``.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / PROBE_FILE).unlink(missing_ok=True)
    shutil.rmtree(out / DRAWS, ignore_errors=True)
    embedded = TaskEmbedder(parser, cache, device, average, stated).embed(source)
    seed = int(parser.get_parsed_content("seed"))
    vectors = embedded.vectors
    outcome = probe.predict(vectors["train"], vectors["validation"], vectors["test"], seed)
    draws = _write_evaluation(parser, embedded, outcome, out)
    record = {
        "format": 1,
        "protocol": probe.name,
        "settings": asdict(probe),  # type: ignore[call-overload]
        "chosen_by": score_name(vectors["train"]),
        "chosen": outcome.chosen,
        "tried": outcome.tried,
        "draws": draws,
        "seed": seed,
        "label_fraction": parser.get_parsed_content("label_fraction"),
        "average": average,
        "bundle": Path(str(parser.get("bundle_root") or "")).name,
        "cases": {part: len(rows) for part, rows in vectors.items()},
        "encoder": embedded.encoder,
        "preprocessing": embedded.preprocessing,
        "versions": versions(),
    }
    text = json.dumps(record, indent=1, default=str) + "\n"
    write_durably(out / PROBE_FILE, lambda file: file.write(text.encode()))
    logger.info("%s of %s is in %s", probe.name, source.name, out)
    return out / PROBE_FILE


def _write_evaluation(
    parser: ConfigParser, embedded: EmbeddedTask, outcome: ProbeOutcome, out: Path
) -> list[dict[str, float]]:
    """Let the bundle's own metric judge the predictions and write its files; the figures of repeated draws, if any."""
    found: Any = parser.get_parsed_content("validate#key_metric")
    name, metric = next(iter(found.items()))
    root = parser.get_parsed_content("dataset_dir")
    root = root if isinstance(root, str | Path) else None
    metric.support = {part: _support(rows) for part, rows in embedded.vectors.items()}
    places = [(out / DRAWS / str(number), drawn) for number, drawn in enumerate(outcome.draws)]
    figures = []
    for folder, probabilities in [*places, (out, outcome.probabilities)]:
        folder.mkdir(parents=True, exist_ok=True)
        metric.output_dir = folder
        figures.append(_judged(metric, name, embedded, probabilities, root))
        write_cases(folder / JUDGED_FILE, judged_rows(metric, embedded, parser))
    for folder, _ in places:
        (folder / PREDICTIONS).unlink(missing_ok=True)  # as large as all else together
    return figures[:-1]


def _judged(
    metric: Any, name: str, embedded: EmbeddedTask, probabilities: torch.Tensor, root: str | Path | None
) -> dict[str, float]:
    """All figures of a bundle's metric for these predictions; it writes its files if it has a folder."""
    test, engine = embedded.vectors["test"], Engine(lambda *_: None)
    files = [path_below(embedded.files[case], root) for case in test.cases]
    metric.reset()
    if "volumes" in vars(metric):  # slices of a volume are judged together
        metric.volumes.update({case: embedded.volumes[case] for case in test.cases})
    metric.update((_logits(probabilities, test.multilabel), test.targets, list(test.cases), files))
    metric.completed(engine, name)
    return {key: float(value) for key, value in engine.state.metrics.items()}


def _logits(probabilities: torch.Tensor, multilabel: bool) -> torch.Tensor:
    """What a network would have given: metrics turn it into probabilities again."""
    found = probabilities.double()
    return torch.logit(found, eps=1e-12) if multilabel else found.clamp(min=_SMALLEST).log()


def _support(rows: LabelledVectors) -> dict[str, int]:
    if rows.multilabel:
        counts = rows.targets.sum(dim=0).long()
    else:
        counts = torch.bincount(rows.targets, minlength=len(rows.class_names))
    return dict(zip(rows.class_names, counts.tolist(), strict=True))


def judged_rows(metric: Any, embedded: EmbeddedTask, parser: ConfigParser) -> list[JudgedCase]:
    """What every judged case adds: right (1) or wrong (0); of several findings what `judged_cases` says."""
    test = embedded.vectors["test"]
    groups = dict(zip(test.cases, test.groups, strict=True))
    groups |= {embedded.volumes[case]: group for case, group in groups.items()}
    if test.multilabel:
        from monai_ssl_transfer.evaluation.robustness_cases import judged_cases

        return [replace(row, group=groups[row.case]) for row in judged_cases(parser)[2]]
    rows = []
    for key, one in metric.found.items():
        right = float(int(one.probabilities.argmax()) == one.label)
        rows.append(JudgedCase(str(key), groups[str(key)], test.class_names[one.label], right, 1.0))
    return rows
