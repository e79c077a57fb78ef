"""Maps of the images, by colour and with the images themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from monai_ssl_transfer.evaluation.features.pictures import spread_pictures
from monai_ssl_transfer.evaluation.features.result import EncoderResult, FeatureResult
from monai_ssl_transfer.evaluation.features.svg import MORE, OTHER, atlas, colours_of, key, scatter

COLUMNS, ROWS = 9, 9


def pictured_plane(one: EncoderResult) -> str:
    """The plane that is shown with images: the last one, whose neighbourhoods are the truest; "" without planes."""
    return list(one.planes)[-1] if one.planes else ""


def map_positions(result: FeatureResult) -> list[int]:
    """Positions of the images that the maps show."""
    found: set[int] = set()
    for one in result.encoders:
        if name := pictured_plane(one):
            found |= {position for position, _, _ in spread_pictures(one.planes[name], COLUMNS, ROWS)}
    return sorted(found)


def maps_section(result: FeatureResult, small: Mapping[int, str]) -> str:
    """Every plane by class and by patient, and one plane of each encoder with its images.

    Args:
        result: the report.
        small: data URIs by position, of `map_positions`.
    """
    if not any(one.planes for one in result.encoders):
        return ""
    note = (
        "Every point is an image; images that lie close together look alike to the encoder. In t-SNE and UMAP only "
        "who lies beside whom means something, not how far groups are apart."
    )
    parts = [f"<p class='note'>{note}</p>"]
    for method in dict.fromkeys(name for one in result.encoders for name in one.planes):
        for title, kinds in _colourings(result):
            colours = colours_of(kinds)
            parts.append(f"<h3>{escape(method)}, coloured by {escape(title)}</h3>{_key(colours)}")
            parts.append(
                f"<div class='maps'>{''.join(_coloured(one, method, kinds, result) for one in result.encoders)}</div>"
            )
    parts.append(f"<h3>{escape(pictured_plane(result.encoders[0]))} with the images themselves</h3>")
    parts.append(f"<div class='maps'>{''.join(_pictured(one, small) for one in result.encoders if one.planes)}</div>")
    return "".join(parts)


def _colourings(result: FeatureResult) -> list[tuple[str, Sequence[str]]]:
    """By class if there are classes; by patient where there are few enough; else by thirds of the first property."""
    found: list[tuple[str, Sequence[str]]] = []
    if result.labels:
        found.append(("class", result.labels))
    if 1 < result.patients <= len(MORE):
        numbers = {name: f"{i:02d}" for i, name in enumerate(dict.fromkeys(result.groups), 1)}
        what = "group" if result.photographs else "patient"
        found.append((what, [f"{what} {numbers[name]}" for name in result.groups]))
    if found:
        return found
    first = result.properties[0]
    ends = np.quantile(result.values[first.name], (1 / 3, 2 / 3))
    thirds = np.array(["1 lowest third", "2 middle third", "3 highest third"])
    title = f"{first.title[0].lower()}{first.title[1:]} (there are no classes, and too many patients to tell apart)"
    return [(title, thirds[np.searchsorted(ends, result.values[first.name])].tolist())]


def _key(colours: Mapping[str, str]) -> str:
    return key(colours) if len(colours) > 1 else ""


def _coloured(one: EncoderResult, method: str, kinds: Sequence[str], result: FeatureResult) -> str:
    if method not in one.planes:
        return ""
    colours = colours_of(kinds)
    marks = [colours.get(kind, OTHER) for kind in kinds]
    names = [f"{name} {kind}".strip() for name, kind in zip(result.names, kinds, strict=True)]
    return f"<figure><figcaption>{escape(one.name)}</figcaption>{scatter(one.planes[method], marks, names)}</figure>"


def _pictured(one: EncoderResult, small: Mapping[int, str]) -> str:
    spread = spread_pictures(one.planes[pictured_plane(one)], COLUMNS, ROWS)
    shown = [(small[position], column, row) for position, column, row in spread]
    return f"<figure><figcaption>{escape(one.name)}</figcaption>{atlas(shown, COLUMNS, ROWS)}</figure>"
