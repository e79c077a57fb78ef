"""Sheets of images with those that an encoder finds most alike."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from monai_ssl_transfer.evaluation.features.pictures import chosen_queries
from monai_ssl_transfer.evaluation.features.result import EncoderResult, FeatureResult

QUERIES = 8


def sheet_positions(result: FeatureResult) -> list[int]:
    """Positions of the images that the sheets show."""
    queries = chosen_queries(result.labels, result.groups, QUERIES)
    found = set(queries)
    for one in result.encoders:
        if one.neighbours is not None:
            found |= {int(near) for query in queries for near in one.neighbours[query] if near >= 0}
    return sorted(found)


def sheets_section(result: FeatureResult, pictures: Mapping[int, str]) -> str:
    """For some images, what each encoder finds most alike among the images of other patients.

    Args:
        result: the report.
        pictures: data URIs by position, of `sheet_positions`.
    """
    if all(one.neighbours is None for one in result.encoders):
        return ""
    who = "groups" if result.photographs else "patients"
    note = (
        f"Left of the line the image asked for, right of it the most alike images of other {who}, most alike first, "
        "with the cosine of their features."
    )
    if result.labels:
        note += " Green frame: the same class; orange: another one."
    queries = chosen_queries(result.labels, result.groups, QUERIES)
    blocks = "".join(
        f"<div><h3>{escape(result.labels[query] if result.labels else f'Image {number}')}</h3>"
        f"{''.join(_sheet(one, query, result, pictures) for one in result.encoders)}</div>"
        for number, query in enumerate(queries, 1)
    )
    return f"<p class='note'>{note}</p><div class='queries'>{blocks}</div>"


def _sheet(one: EncoderResult, query: int, result: FeatureResult, pictures: Mapping[int, str]) -> str:
    if one.neighbours is None or one.cosines is None:
        return ""
    figures = [_figure(pictures[query], result.names[query], "asked for", "", "asked")]
    for position, cosine in zip(one.neighbours[query].tolist(), one.cosines[query].tolist(), strict=True):
        if position < 0:
            continue
        told = f"{cosine:.3f}" + (f" {result.labels[position]}" if result.labels else "")
        figures.append(_figure(pictures[position], result.names[position], told, _frame(result, query, position), ""))
    count = one.neighbours.shape[1] + 1
    return (
        f"<p class='soft' style='margin:.2rem 0'>{escape(one.name)}</p>"
        f"<div class='sheet' style='--count:{count}'>{''.join(figures)}</div>"
    )


def _frame(result: FeatureResult, query: int, position: int) -> str:
    if not result.labels or not result.labels[query]:
        return ""
    return "same" if result.labels[position] == result.labels[query] else "other"


def _figure(uri: str, name: str, told: str, frame: str, place: str) -> str:
    words = escape(name, quote=True)
    return (
        f"<figure class='{place}'><img class='{frame}' alt='{words}' title='{words}' src='{uri}'>"
        f"<figcaption>{escape(told)}</figcaption></figure>"
    )
