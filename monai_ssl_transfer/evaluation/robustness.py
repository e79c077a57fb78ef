"""How much a model loses under corruptions: scores over paired cases, with intervals by resampling groups.

Every cell of the grid judged the same cases, so that a drop is a difference within cases. The interval draws groups
(patients, videos) with replacement, all cases of a group together and in all cells at once (cluster bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monai_ssl_transfer.errors import DataError

CLEAN = ("clean", 0)
FEW_GROUPS = 10
"""Below this number of groups the intervals are too narrow to be believed."""
_CHUNK = 250
_LEVEL = (2.5, 97.5)


@dataclass(frozen=True)
class JudgedCase:
    """What one case adds to a score; the score is the mean over strata of sum(gained) / sum(possible).

    Args:
        case: its name.
        group: its patient or video.
        stratum: class, where the score is a mean over classes.
        gained: e.g. Dice, 1 for a right answer, or an error.
        possible: 1, or e.g. the number of boxes.
    """

    case: str
    group: str
    stratum: str
    gained: float
    possible: float


@dataclass(frozen=True)
class Measured:
    """A number with the ends of its 95 % interval (nan where there is one group only)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CellResult:
    """One severity of one corruption: its score, what is lost against the clean images, and the share that is kept."""

    corruption: str
    severity: int
    score: Measured
    drop: Measured
    relative: Measured


@dataclass(frozen=True)
class RobustnessResult:
    """A whole grid.

    Args:
        metric: name of the score.
        higher_is_better: False for errors; drops and relative robustness are turned round then.
        cases: judged cases.
        groups: their groups.
        clean: score of the clean images.
        cells: every severity of every corruption.
        means: by corruption, over its severities: mean drop and relative robustness.
        overall: the same over all corruptions, each weighing the same.
    """

    metric: str
    higher_is_better: bool
    cases: int
    groups: int
    clean: Measured
    cells: tuple[CellResult, ...]
    means: Mapping[str, tuple[Measured, Measured]]
    overall: tuple[Measured, Measured]


def judge_grid(
    cells: Mapping[tuple[str, int], Sequence[JudgedCase]],
    metric: str,
    higher_is_better: bool = True,
    draws: int = 2000,
    seed: int = 0,
) -> RobustnessResult:
    """Summarise a grid.

    Args:
        cells: judged cases by (corruption, severity); ("clean", 0) must be among them.
        metric: name of the score.
        higher_is_better: False for errors.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        DataError: no clean cell, no corrupted one, or cells of different cases.
    """
    if CLEAN not in cells or len(cells) < 2:
        raise DataError("a grid needs the clean images and at least one corruption: let `ssl-transfer robustness` end.")
    rows = {name: sorted(found, key=lambda one: (one.case, one.stratum)) for name, found in cells.items()}
    first = rows[CLEAN]
    known = [(one.case, one.stratum) for one in first]
    for (corruption, severity), found in rows.items():
        if [(one.case, one.stratum) for one in found] != known:
            raise DataError(
                f"{corruption} {severity} judged other cases than the clean run: delete its cell and go on."
            )
    weights = group_draws([one.group for one in first], draws, seed)
    scores = {name: drawn_scores(found, weights) for name, found in rows.items()}
    return _result(scores, metric, higher_is_better, len({one.case for one in first}), len({r.group for r in first}))


def group_draws(groups: Sequence[str], draws: int, seed: int) -> np.ndarray:
    """Draw groups with replacement, all cases of a group together.

    Args:
        groups: of every row of a cell.
        draws: number of them.
        seed: of them; the same one gives the same draws for every cell of the same cases.

    Returns:
        (1 + draws, rows): how often each row counts; first the data themselves.
    """
    names, number = np.unique(groups, return_inverse=True)
    random = np.random.Generator(np.random.Philox(seed))
    counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return np.concatenate([np.ones((1, len(number))), counts[:, number]]).astype(np.float32)


def drawn_scores(rows: Sequence[JudgedCase], weights: np.ndarray) -> np.ndarray:
    """Score a cell in every draw of groups.

    Args:
        rows: the cell's judged cases.
        weights: (1 + draws, rows) of `group_draws`.

    Returns:
        (1 + draws,) scores; a stratum that a draw lacks is left out of it.
    """
    strata, number = np.unique([one.stratum for one in rows], return_inverse=True)
    member = np.eye(len(strata))[number]
    gained = np.array([one.gained for one in rows])[:, None] * member
    possible = np.array([one.possible for one in rows])[:, None] * member
    found = []
    for start in range(0, len(weights), _CHUNK):
        part = weights[start : start + _CHUNK].astype(np.float64)
        below = part @ possible
        share = np.divide(part @ gained, below, out=np.full(below.shape, np.nan), where=below > 0)
        there = np.isfinite(share)
        total = np.where(there, share, 0).sum(axis=1)
        found.append(np.where(there.any(axis=1), total / np.maximum(there.sum(axis=1), 1), np.nan))
    return np.concatenate(found)


def _result(
    scores: Mapping[tuple[str, int], np.ndarray], metric: str, higher: bool, cases: int, groups: int
) -> RobustnessResult:
    clean = scores[CLEAN]
    drops = {name: (clean - one if higher else one - clean) for name, one in scores.items() if name != CLEAN}
    shares = {name: _ratio(one, clean) if higher else _ratio(clean, one) for name, one in scores.items()}

    def of(values: np.ndarray) -> Measured:
        return _measured(values, groups)

    cells = tuple(
        CellResult(*name, score=of(scores[name]), drop=of(drops[name]), relative=of(shares[name])) for name in drops
    )
    names = list(dict.fromkeys(corruption for corruption, _ in drops))
    pairs = {
        name: tuple(np.mean([found[key] for key in drops if key[0] == name], axis=0) for found in (drops, shares))
        for name in names
    }
    overall = tuple(of(np.mean([pair[i] for pair in pairs.values()], axis=0)) for i in (0, 1))
    means = {name: (of(pair[0]), of(pair[1])) for name, pair in pairs.items()}
    return RobustnessResult(metric, higher, cases, groups, of(clean), cells, means, (overall[0], overall[1]))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _measured(values: np.ndarray, groups: int) -> Measured:
    drawn = values[1:][np.isfinite(values[1:])]
    if groups < 2 or not len(drawn):
        return Measured(float(values[0]), math.nan, math.nan)
    low, high = np.percentile(drawn, _LEVEL)
    return Measured(float(values[0]), float(low), float(high))
