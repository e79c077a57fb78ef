"""``ssl-transfer robustness``: one trained model under every corruption and severity; finished cells are kept."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.engines.bundle_run import run_bundle
from monai_ssl_transfer.engines.bundle_settings import ids_of, unknown_setting
from monai_ssl_transfer.engines.checkpoints.fingerprint import file_hash
from monai_ssl_transfer.engines.records.run_config import CONFIG_FILE
from monai_ssl_transfer.errors import DataError, user_error_of
from monai_ssl_transfer.evaluation.robustness import CLEAN, JudgedCase, RobustnessResult, judge_grid
from monai_ssl_transfer.installation import project_folder
from monai_ssl_transfer.views.corruptions import CORRUPTIONS, CT, MR, PHOTOGRAPH, SEVERITIES
from monai_ssl_transfer.views.corruptions.severities import corruption

Cell = tuple[str, int]
CELL_FILE = "cell.json"
CASES_FILE = "cases.csv"
_COLUMNS = [one.name for one in fields(JudgedCase)]


@dataclass(frozen=True)
class GridOptions:
    """What is run.

    Args:
        bundle: name of one of the task bundles.
        weights: output_dir of its training.
        data: the data set, as for the bundle's evaluation; several folders where the bundle takes several.
        out: folder for cells, table and figures.
        corruptions: names; none takes all that suit the data.
        severities: of 1 to 5.
        overlays: configuration files that the training was given, for a run without `config.json`.
        settings: further ids to set, such as {"evaluate_part": "all"}.
        seed: of the corruptions.
    """

    bundle: str
    weights: Path
    data: tuple[Path, ...]
    out: Path
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = SEVERITIES
    overlays: tuple[Path, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


def run_grid(options: GridOptions) -> RobustnessResult:
    """Evaluate every cell that is not there yet, and summarise all that were asked for.

    Raises:
        DataError: no such bundle, run, corruption or severity, or what the evaluation found wrong with the data.
    """
    grid = _Grid(options)
    found, kind = {}, ("", True)
    with tqdm(grid.cells, desc="robustness", unit="cell") as bar:
        for cell in bar:
            bar.set_postfix_str(" ".join(map(str, cell)), refresh=False)
            record = grid.finished(cell) or grid.run(cell)
            found[cell], kind = read_cases(grid.folder(cell) / CASES_FILE), (record["metric"], record["higher"])
    return judge_grid(found, *kind)


def parsed_settings(given: Sequence[str], option: str = "--set", example: str = "evaluate_part=all") -> dict[str, Any]:
    """Settings from "id=value"; a value is JSON, else text.

    Args:
        given: what the command line has.
        option: its name there, and an ``example`` of it, for the error.

    Raises:
        DataError: no "=".
    """
    found: dict[str, Any] = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign:
            raise DataError(f"'{one}' sets nothing: give {option} as id=value, such as {example}.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


class _Grid:
    """The cells of one model: which there are, where they lie, and how one is run."""

    def __init__(self, options: GridOptions) -> None:
        self.options = options
        self.model = _model_file(options.weights)
        self.bundle = project_folder() / "bundles" / options.bundle / "configs"
        self.base = _base_configuration(options, self.bundle, self.model)
        config = "\n".join(file.read_text(encoding="utf-8") for file in self.base)
        self.kind = _data_kind(config)
        if unknown := unknown_setting(options.settings, ids_of(self.base)):
            name, near = unknown
            hint = f"did you mean {near}?" if near else f"see {self.base[0]}."
            raise DataError(f"{options.bundle} has no setting '{name}': {hint}")
        self.settings = dict(options.settings)
        if '"surfaces"' in config:  # HD95 costs more than the network, and no score here uses it
            self.settings.setdefault("validate#report#surfaces", False)
        if '"overlay_examples"' in config:
            self.settings.setdefault("overlays", False)
        if '"LOCAL_RANK"' in config or "'LOCAL_RANK'" in config:  # trained by several processes, judged by one
            self.settings |= {"network": "$@network_def.to(@device)", "validate#sampler": None, "finalize": []}
        self.cells = self._cells()
        self.common = {
            "model_sha256": file_hash(self.model),
            "data": [str(folder.resolve()) for folder in options.data],
            "settings": json.loads(json.dumps(self.settings, default=str)),
            "seed": options.seed,
        }

    @property
    def domain(self) -> str:
        return {"photographs": PHOTOGRAPH, "mr_volumes": MR}.get(self.kind, CT)

    def _cells(self) -> list[Cell]:
        usual = [
            row.name for row in CORRUPTIONS[self.domain].values() if self.kind != "ct_slices" or not row.volumes_only
        ]
        names = self.options.corruptions or tuple(usual)
        for name in names:
            for severity in self.options.severities:
                corruption(self.domain, name).at(severity)
        return [CLEAN, *((name, severity) for name in names for severity in sorted(set(self.options.severities)))]

    def folder(self, cell: Cell) -> Path:
        name, severity = cell
        cells = self.options.out / "cells"
        return cells / name / str(severity) if cell != CLEAN else cells / name

    def _identity(self, cell: Cell) -> dict[str, Any]:
        """All that the result of a cell depends on; another one is run again."""
        values = [] if cell == CLEAN else list(corruption(self.domain, cell[0]).at(cell[1]))
        return {**self.common, "corruption": cell[0], "severity": cell[1], "values": values}

    def finished(self, cell: Cell) -> dict[str, Any] | None:
        """The record of a cell that was run before, with the same weights, data, settings and severities."""
        file = self.folder(cell) / CELL_FILE
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            same = {name: record[name] for name in self._identity(cell)} == self._identity(cell)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if same else None

    def run(self, cell: Cell) -> dict[str, Any]:
        """Evaluate one cell in this process and write its cases; the record comes last."""
        from monai_ssl_transfer.evaluation.robustness_cases import judged_cases

        folder = self.folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CELL_FILE).unlink(missing_ok=True)
        name, severity = cell
        data = [str(one) for one in self.options.data]
        overrides = {
            "model_file": str(self.model),
            "run_dir": str(self.model.parent.parent),
            "dataset_dir": data if len(data) > 1 else data[0],
            "output_dir": str(folder),
            "num_workers": 0,
            "corruption": next(iter(CORRUPTIONS[self.domain])) if cell == CLEAN else name,
            "severity": severity,
            "corruption_seed": self.options.seed,
            **self.settings,
        }
        files = [*self.base, project_folder() / "configs" / "robustness" / f"{self.kind}.json"]
        with _quiet(self.options.out / "log.txt"):
            try:
                meta = self.bundle / "metadata.json"
                metric, higher, rows = run_bundle(files, overrides, meta, judged_cases)
            except Exception as error:
                cause = user_error_of(error)
                if cause is None:
                    raise
                raise DataError(f"{name} {severity}: {cause}") from error
        write_cases(folder / CASES_FILE, rows)
        record = {**self._identity(cell), "metric": metric, "higher": higher, "cases": len(rows)}
        write_durably(folder / CELL_FILE, lambda file: file.write((json.dumps(record, indent=1) + "\n").encode()))
        return record


def _model_file(weights: Path) -> Path:
    file = weights if weights.is_file() else weights / "models" / "model.pt"
    if not file.is_file():
        raise DataError(f"there is no {file}: give the output_dir of a finished training with --weights.")
    return file


def _base_configuration(options: GridOptions, bundle: Path, model: Path) -> list[Path]:
    """The run's own configuration, or the bundle's with the overlays; then that of the bundle's evaluation."""
    if not (bundle / "evaluate.json").is_file():
        known = sorted(path.parent.parent.name for path in bundle.parent.parent.glob("*/configs/evaluate.json"))
        raise DataError(f"there is no bundle '{options.bundle}': choose one of {', '.join(known)}.")
    own = model.parent.parent / CONFIG_FILE
    first = own if own.is_file() else bundle / "train.json"
    return [first, *options.overlays, bundle / "evaluate.json"]


def _data_kind(config: str) -> str:
    """Overlay of configs/robustness for a configuration.

    Raises:
        DataError: the bundle pretrains, or reads its images in another way.
    """
    if "validate#dataset" in config and "frame_transforms.LoadFramed" in config:
        return "photographs"
    if "labelled_slices.LabelledSliceDataset" in config:
        return "ct_slices"
    if "labelled_cases.cases_to_evaluate" in config:
        return "ct_volumes"
    if "volumes.cases.volumes_to_evaluate" in config:
        return "mr_volumes" if re.search(r'"channels": "(z_score|percentile)"', config) else "ct_volumes"
    raise DataError("this bundle has no validation of a task: give one of the task bundles with --bundle.")


def write_cases(file: Path, rows: Sequence[JudgedCase]) -> None:
    """Write judged cases as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([_COLUMNS, *([*astuple(row)[:3], repr(row.gained), repr(row.possible)] for row in rows)])
    write_durably(file, lambda stream: stream.write(text.getvalue().encode(errors="surrogateescape")))


def read_cases(file: Path) -> list[JudgedCase]:
    """Read what `write_cases` wrote."""
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return [
            JudgedCase(one["case"], one["group"], one["stratum"], float(one["gained"]), float(one["possible"]))
            for one in csv.DictReader(stream)
        ]


@contextlib.contextmanager
def _quiet(file: Path) -> Iterator[None]:
    """What MONAI prints goes into a file; its warnings about every workflow without a logging file go nowhere."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with file.open("a") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            yield
    finally:
        logging.disable(disabled)
