"""A page to look at: pictures with the contours of truth and prediction, the best, middle and worst by Dice."""

from __future__ import annotations

import base64
import html
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ignite.engine import Engine, Events

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.evaluation.frame_segmentation_report import label_map
from monai_ssl_transfer.evaluation.overlay_drawing import PREDICTION_COLOUR, TRUTH_COLOUR, Colour, overlay_jpeg

logger = logging.getLogger(__name__)

PICTURES, PICTURE_LIST = "overlays", "cases.json"
_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2em auto;max-width:1100px;background:#fff;color:#222}"
    ".row{display:flex;flex-wrap:wrap;gap:14px}figure{margin:0;width:340px}img{width:100%;background:#000}"
    "figcaption{font-size:13px;overflow-wrap:anywhere}.key{padding:0 .6em;border-radius:3px;color:#000}"
)


class JudgedRow(Protocol):
    """What a report knows of one case and class."""

    @property
    def case(self) -> str:
        """Name of the case."""

    @property
    def name(self) -> str:
        """Name of the class."""

    @property
    def metrics(self) -> Any:
        """Has ``dice``, and what the page tells beside it."""


class JudgedReport(Protocol):
    """Collects the metrics of an evaluation."""

    @property
    def rows(self) -> Sequence[JudgedRow]:
        """A row for each case and class."""


@dataclass(frozen=True)
class Drawing:
    """A picture with contours as JPEG bytes, and what its caption says of it beside the metrics."""

    jpeg: bytes
    note: str = ""


@dataclass(frozen=True)
class Overlay:
    """The picture of one case, and its metrics."""

    case: str
    drawing: Drawing
    rows: tuple[JudgedRow, ...]

    @property
    def dice(self) -> float:
        """Mean Dice over the classes."""
        return float(np.mean([row.metrics.dice for row in self.rows]))


class OverlayPage:
    """MONAI handler for the evaluation engine: write ``overlays.html``, which opens without a network.

    The truth's contour is drawn just outside its mask and the prediction's just inside, so that both are seen where
    they agree. Every photograph is kept as a JPEG picture of some 50 KB until the end, when it is known which ones are
    best, middle and worst.

    Args:
        report: that of the metric of the same engine, which must be attached before.
        output_dir: where the page goes.
        examples: photographs of each kind.
        case_key: item of the batch that names the photograph.
        pictures: also keep the picture of every photograph in ``overlays/``, with ``cases.json`` (case -> file), so
            that several models can be looked at on the same photographs.
    """

    def __init__(
        self,
        report: JudgedReport,
        output_dir: str | Path,
        examples: int = 6,
        case_key: str = "name",
        pictures: bool = False,
    ) -> None:
        self.report = report
        self.path = Path(output_dir) / "overlays.html"
        self.examples = examples
        self.case_key = case_key
        self.pictures = pictures
        self._drawings: dict[str, Drawing] = {}

    def attach(self, engine: Engine) -> None:
        """Connect to an evaluator with decollated batches."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def case_of(self, item: Mapping[str, Any], found: Mapping[str, Any]) -> str:
        """Name of a case, from its batch and its output."""
        return str(item[self.case_key])

    def draw(self, found: Mapping[str, Any]) -> Drawing:
        """The picture of one case, from its output."""
        return Drawing(overlay_jpeg(found["image"], label_map(found["label"]), label_map(found["pred"])))

    def key(self, count: int, mean: str) -> str:
        """HTML that tells what the page shows: so many cases of that mean Dice, and what the colours are."""
        return (
            f"{colour_key('truth', TRUTH_COLOUR)} {colour_key('prediction', PREDICTION_COLOUR)} "
            f"{count} photographs, mean Dice {mean}; shown are the best, those around the median, and the "
            "worst. HD95 in pixels of the photograph."
        )

    def numbers(self, metrics: Any) -> str:
        """The metrics of one case and class in words."""
        return (
            f"Dice {metrics.dice:.3f}, IoU {metrics.iou:.3f}, precision {metrics.precision:.3f}, "
            f"recall {metrics.recall:.3f}, HD95 {metrics.hd95:.1f}, "
            f"lesions found {metrics.lesions_found} of {metrics.lesions}, false {metrics.false_lesions}"
        )

    def _started(self, engine: Engine) -> None:
        self._drawings = {}

    def _keep(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for item, found in zip(batch, output, strict=True):
            self._drawings[self.case_of(item, found)] = self.draw(found)

    def _write(self, engine: Engine) -> None:
        overlays = [
            Overlay(case, drawing, tuple(row for row in self.report.rows if row.case == case))
            for case, drawing in self._drawings.items()
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self._page(overlays), encoding="utf-8")
        if self.pictures:
            jpegs = {case: drawing.jpeg for case, drawing in self._drawings.items()}
            write_pictures(jpegs, self.path.with_name(PICTURES))
        self._drawings = {}
        logger.info("contours of truth and prediction can be seen in %s", self.path)

    def _page(self, overlays: Sequence[Overlay]) -> str:
        chosen = choose_examples([one.dice for one in overlays], self.examples)
        mean = float(np.mean([one.dice for one in overlays])) if overlays else float("nan")
        sections = "".join(
            f"<h2>{kind.capitalize()}</h2><div class='row'>"
            f"{''.join(self._figure(overlays[i]) for i in positions)}</div>"
            for kind, positions in chosen.items()
            if positions
        )
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Truth and prediction</title>'
            f"<style>{_STYLE}</style></head><body><h1>Truth and prediction</h1>"
            f"<p>{self.key(len(overlays), f'{mean:.3f}')}</p>{sections}</body></html>\n"
        )

    def _figure(self, overlay: Overlay) -> str:
        source = base64.b64encode(overlay.drawing.jpeg).decode()
        lines = [html.escape(f"{row.name}: {self.numbers(row.metrics)}") for row in overlay.rows]
        caption = "<br>".join([*([html.escape(overlay.drawing.note)] if overlay.drawing.note else []), *lines])
        return (
            f"<figure><img alt='contours on {html.escape(overlay.case)}' src='data:image/jpeg;base64,{source}'>"
            f"<figcaption><b>{html.escape(overlay.case)}</b><br>{caption}</figcaption></figure>"
        )


def write_pictures(jpegs: Mapping[str, bytes], folder: Path) -> None:
    """Write pictures by case; the list of them comes last.

    Args:
        jpegs: case -> JPEG bytes.
        folder: made if it does not exist.
    """
    files = {case: f"{number:06d}.jpg" for number, case in enumerate(jpegs)}
    for case, content in jpegs.items():
        write_durably(folder / files[case], lambda file, content=content: file.write(content))  # type: ignore[misc]
    listed = json.dumps(files, indent=1) + "\n"
    write_durably(folder / PICTURE_LIST, lambda file: file.write(listed.encode()))


def choose_examples(values: Sequence[float], count: int) -> dict[str, list[int]]:
    """Choose the best, the middle and the worst of some values, none twice.

    Args:
        values: larger is better.
        count: of each kind, as far as there are enough values.

    Returns:
        Positions by kind ("best", "median", "worst"), the worst one first in "worst".
    """
    order = sorted(range(len(values)), key=lambda index: (-values[index], index))
    count = min(count, -(-len(order) // 3))
    best, rest = order[:count], order[count:]
    worst, rest = rest[len(rest) - min(count, len(rest)) :][::-1], rest[: max(0, len(rest) - count)]
    # What is left lies around the median: its middle does.
    start = max(0, (len(rest) - count) // 2)
    return {"best": best, "median": rest[start : start + count], "worst": worst}


def colour_key(name: str, colour: Colour) -> str:
    """HTML of a name on its colour."""
    return f"<span class='key' style='background:rgb{colour}'>{html.escape(name)}</span>"
