"""Numbers and cells as a reader sees them."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal

from monai_ssl_transfer.study.declaration import Metric
from monai_ssl_transfer.study.results import Cell
from monai_ssl_transfer.study.statistics.analysis import Compared
from monai_ssl_transfer.study.statistics.seeds import Summary

NOTHING = "–"


def fixed(value: float, digits: int = 2, signed: bool = False) -> str:
    """Print a number; halves go away from zero after what floating point added is rounded off."""
    if not math.isfinite(value):
        return NOTHING
    decimal = Decimal(repr(round(value, 10))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    if not decimal:
        decimal = abs(decimal)
    return f"{decimal:+f}" if signed else f"{decimal:f}"


def p_value(p: float) -> str:
    """Print a p value to three digits; never as zero."""
    if not math.isfinite(p):
        return NOTHING
    return "<0.0005" if p < 0.0005 else fixed(p, 3)


def percent(part: float) -> str:
    """Print a fraction as "10 %"."""
    return f"{part * 100:g} %"


def mean_and_sd(summary: Summary | None, metric: Metric) -> str:
    """Print a cell as "93.54 ± 0.95"; a single run has no spread."""
    if summary is None:
        return NOTHING
    mean = amount(summary.mean, metric)
    return mean if summary.n < 2 else f"{mean} ± {amount(summary.sd, metric)}"


def amount(value: float, metric: Metric, signed: bool = False) -> str:
    """Print a value of the table in the metric's unit and digits."""
    return fixed(value * metric.scale, metric.digits, signed)


def interval(low: float, high: float, metric: Metric) -> str:
    """Print the ends of a difference's interval as "+1.20 to +2.78"."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return NOTHING
    return f"{amount(low, metric, signed=True)} to {amount(high, metric, signed=True)}"


def difference_with_p(one: Compared | None) -> str:
    """Print a comparison as "+1.99 (0.001)": difference and raw p."""
    if one is None or one.difference is None:
        return NOTHING
    return f"{amount(one.difference.value, one.metric, signed=True)} ({p_value(one.p)})"


def place(cell: Cell) -> str:
    """Name a setting without its initialisation: "body region, 10 % of the labels, fine-tuning"."""
    labels = "" if cell.fraction == 1 else f"{percent(cell.fraction)} of the labels"
    return ", ".join(part for part in (cell.task, labels, cell.protocol) if part)


def with_unit(metric: Metric) -> str:
    """Name a metric with the unit of its printed values."""
    return f"{metric.name} ({metric.unit})" if metric.unit else metric.name
