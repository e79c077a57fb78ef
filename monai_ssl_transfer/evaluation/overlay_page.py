"""A page to look at: photographs with the contours of truth and prediction, the best, middle and worst by Dice."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.evaluation.frame_segmentation_report import FrameRow, FrameSegmentationReport, label_map

logger = logging.getLogger(__name__)

PICTURES, PICTURE_LIST = "overlays", "cases.json"
TRUTH_COLOUR = (60, 255, 60)
PREDICTION_COLOUR = (70, 170, 255)
_LONGEST_SIDE = 480
_STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2em auto;max-width:1100px;background:#fff;color:#222}"
    ".row{display:flex;flex-wrap:wrap;gap:14px}figure{margin:0;width:340px}img{width:100%;background:#000}"
    "figcaption{font-size:13px;overflow-wrap:anywhere}.key{padding:0 .6em;border-radius:3px;color:#000}"
)


@dataclass(frozen=True)
class Overlay:
    """A photograph with its contours as JPEG bytes, and its metrics."""

    case: str
    jpeg: bytes
    rows: tuple[FrameRow, ...]

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
        report: that of the `FrameSegmentationMetric` of the same engine, which must be attached before.
        output_dir: where the page goes.
        examples: photographs of each kind.
        case_key: item of the batch that names the photograph.
        pictures: also keep the picture of every photograph in ``overlays/``, with ``cases.json`` (case -> file), so
            that several models can be looked at on the same photographs.
    """

    def __init__(
        self,
        report: FrameSegmentationReport,
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
        self._jpegs: dict[str, bytes] = {}

    def attach(self, engine: Engine) -> None:
        """Connect to an evaluator with decollated batches."""
        engine.add_event_handler(Events.STARTED, self._started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _started(self, engine: Engine) -> None:
        self._jpegs = {}

    def _keep(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for item, found in zip(batch, output, strict=True):
            picture = overlay_jpeg(found["image"], label_map(found["label"]), label_map(found["pred"]))
            self._jpegs[str(item[self.case_key])] = picture

    def _write(self, engine: Engine) -> None:
        overlays = [
            Overlay(case, jpeg, tuple(row for row in self.report.rows if row.case == case))
            for case, jpeg in self._jpegs.items()
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(_page(overlays, self.examples), encoding="utf-8")
        if self.pictures:
            write_pictures(self._jpegs, self.path.with_name(PICTURES))
        self._jpegs = {}
        logger.info("contours of truth and prediction can be seen in %s", self.path)


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


def overlay_jpeg(image: torch.Tensor, truth: np.ndarray, prediction: np.ndarray) -> bytes:
    """Draw the contours of two label maps on a photograph.

    Args:
        image: (3, H, W) of 0..255.
        truth: (H, W) label map.
        prediction: (H, W) label map.

    Returns:
        JPEG bytes; the longest side has at most 480 pixels.
    """
    plain = image.as_tensor() if isinstance(image, MetaTensor) else image
    pixels = plain.detach().cpu().permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    drawn = np.array(picture)
    drawn[_contour(truth, picture.size, outside=True)] = TRUTH_COLOUR
    drawn[_contour(prediction, picture.size, outside=False)] = PREDICTION_COLOUR
    stream = io.BytesIO()
    Image.fromarray(drawn).save(stream, "JPEG", quality=80, subsampling=0)
    return stream.getvalue()


def _contour(labels: np.ndarray, size: tuple[int, int], outside: bool) -> np.ndarray:
    """Two pixels wide line around each label of a map, at the size (columns, rows) of the picture."""
    small = np.array(Image.fromarray(labels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
    line = np.zeros(small.shape, dtype=bool)
    for value in np.unique(small[small > 0]):
        mask = small == value
        line |= binary_dilation(mask, iterations=2) & ~mask if outside else mask & ~binary_erosion(mask, iterations=2)
    return line


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


def _page(overlays: Sequence[Overlay], examples: int) -> str:
    chosen = choose_examples([one.dice for one in overlays], examples)
    mean = float(np.mean([one.dice for one in overlays])) if overlays else float("nan")
    sections = "".join(
        f"<h2>{kind.capitalize()}</h2><div class='row'>{''.join(_figure(overlays[i]) for i in positions)}</div>"
        for kind, positions in chosen.items()
        if positions
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Truth and prediction</title>'
        f"<style>{_STYLE}</style></head><body><h1>Truth and prediction</h1>"
        f"<p>{_key('truth', TRUTH_COLOUR)} {_key('prediction', PREDICTION_COLOUR)} "
        f"{len(overlays)} photographs, mean Dice {mean:.3f}; shown are the best, those around the median, and the "
        f"worst. HD95 in pixels of the photograph.</p>{sections}</body></html>\n"
    )


def _key(name: str, colour: tuple[int, int, int]) -> str:
    return f"<span class='key' style='background:rgb{colour}'>{name}</span>"


def _figure(overlay: Overlay) -> str:
    source = base64.b64encode(overlay.jpeg).decode()
    numbers = "<br>".join(_numbers(row) for row in overlay.rows)
    return (
        f"<figure><img alt='contours on {html.escape(overlay.case)}' src='data:image/jpeg;base64,{source}'>"
        f"<figcaption><b>{html.escape(overlay.case)}</b><br>{numbers}</figcaption></figure>"
    )


def _numbers(row: FrameRow) -> str:
    m = row.metrics
    return (
        f"{html.escape(row.name)}: Dice {m.dice:.3f}, IoU {m.iou:.3f}, precision {m.precision:.3f}, "
        f"recall {m.recall:.3f}, HD95 {m.hd95:.1f}, lesions found {m.lesions_found} of {m.lesions}, "
        f"false {m.false_lesions}"
    )
