"""The report on features as one HTML page that opens offline and prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from monai_ssl_transfer import __version__
from monai_ssl_transfer.evaluation.features.page_maps import maps_section
from monai_ssl_transfer.evaluation.features.page_sheets import sheets_section
from monai_ssl_transfer.evaluation.features.page_style import STYLE
from monai_ssl_transfer.evaluation.features.result import EncoderResult, FeatureResult
from monai_ssl_transfer.evaluation.features.summary import percent, sentences
from monai_ssl_transfer.evaluation.features.svg import COLOURS, RANDOM, dot_chart, heat_map, key
from monai_ssl_transfer.evaluation.robustness import Measured
from monai_ssl_transfer.evaluation.robustness_report import shown

_R2_AXIS = -0.25


def features_page(result: FeatureResult, pictures: Mapping[int, str], small: Mapping[int, str]) -> str:
    """The whole page.

    Args:
        result: of `measure_features`.
        pictures: data URIs by position of the images that `sheets_section` shows.
        small: those of the maps, smaller.
    """
    colours = encoder_colours(result)
    sections = {
        "In short": _short(result),
        "The encoders": _encoders(result),
        "What changed, layer by layer": _layers(result, colours),
        "Maps of the images": maps_section(result, small),
        "Which images look alike": sheets_section(result, pictures),
        "What the features tell about an image": _properties(result, colours),
        "How it was computed": f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in methods(result))}</ul>",
    }
    kept = {name: text for name, text in sections.items() if text}
    links = "".join(f"<a href='#s{number}'>{escape(name)}</a>" for number, name in enumerate(kept))
    body = "".join(
        f"<section id='s{number}'><h2>{escape(name)}</h2>{text}</section>"
        for number, (name, text) in enumerate(kept.items())
    )
    drawn = "" if result.images == result.total else f" of {result.total}, drawn evenly from the patients"
    kind = "photographs" if result.photographs else "CT slices"
    about = f"{result.images} {kind}{drawn}; {result.patients} {'groups' if result.photographs else 'patients'}"
    classes = f"; classes: {result.labels_from}" if result.labels else "; no classes"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Features: {escape(result.title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>What the encoders see in {escape(result.title)}</h1><p class='soft'>{escape(about + classes)}</p>"
        f"<nav>{links}</nav>{body}<p class='soft'>ssl-transfer {__version__}; docs/features.md</p></body></html>\n"
    )


def encoder_colours(result: FeatureResult) -> dict[str, str]:
    """A colour per encoder, grey for random weights, the same in all charts."""
    own = [one.name for one in result.encoders if not one.random]
    found = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(own)}
    return {one.name: found.get(one.name, RANDOM) for one in result.encoders}


def _short(result: FeatureResult) -> str:
    told = "".join(f"<li>{escape(text)}</li>" for text in sentences(result))
    notes = "".join(f"<li>{escape(text)}</li>" for text in result.notes)
    caution = f"<div class='caution'><ul>{notes}</ul></div>" if notes else ""
    return f"<div class='answer'><ul>{told}</ul></div>{caution}"


def _encoders(result: FeatureResult) -> str:
    head = ["encoder", "architecture", "sees", "length", "effective rank", "RankMe", "alignment", "uniformity"]
    if result.labels:
        head += ["silhouette", "Fisher ratio", "class distance", "neighbours of the same class"]
    note = (
        "Effective rank: in how many directions features differ between images; more is not always better, 1 or 2 is "
        "a collapse. Alignment: distance of two random views of an image, 0 if the encoder ignores what the views "
        "change. Uniformity: how evenly images are spread, from 0 (all in one point) to about −4. Both only mean "
        "something together: an encoder that gives all images the same feature has the best alignment."
    )
    if result.labels:
        note += (
            " Silhouette (−1 to 1), Fisher ratio and class distance: larger if classes lie further apart. Neighbours "
            f"of the same class: among the most alike images of other patients; chance {_chance(result)}."
        )
    return f"{_table(head, [_cells(one) for one in result.encoders], 3)}<p class='note'>{escape(note)}</p>"


def _cells(one: EncoderResult) -> list[str]:
    cells = [
        one.name + ("" if one.random else f" ({one.source})"),
        one.architecture,
        f"{one.channels}, {one.image_size} pixels",
        str(one.width),
        f"{one.effective_rank:.1f}",
        f"{one.rankme:.1f}",
        f"{one.alignment:.3f}",
        f"{one.uniformity:.2f}",
    ]
    if one.classes is not None:
        apart, share = one.classes.separability, one.classes.same_class
        cells += [f"{apart.silhouette:.3f}", f"{apart.fisher_ratio:.3f}", f"{apart.class_distance:.3f}"]
        cells.append("–" if share is None else percent(share))
    return [cell.replace("-", "−") if cell[:1] == "-" else cell for cell in cells]


def _chance(result: FeatureResult) -> str:
    found = next((one.classes.chance for one in result.encoders if one.classes is not None), float("nan"))
    return f"{100 * found:.0f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> str:
    """A table that scrolls within itself; its first columns are words."""
    lines = "".join(_line(row, "td", names) for row in rows)
    top = f"<thead>{_line(head, 'th', names)}</thead>"
    return f"<div class='scroll' tabindex='0'><table>{top}<tbody>{lines}</tbody></table></div>"


def _line(cells: Sequence[str], tag: str, names: int) -> str:
    return f"<tr>{''.join(f'<{tag}{_left(i, names)}>{escape(cell)}</{tag}>' for i, cell in enumerate(cells))}</tr>"


def _left(column: int, names: int) -> str:
    return " class=name" if column < names else ""


def _layers(result: FeatureResult, colours: Mapping[str, str]) -> str:
    if not result.comparisons:
        return ""
    first = result.comparisons[0].first
    same = {one.second: one.same_layer for one in result.comparisons if one.same_layer is not None}
    chart = ""
    if same:
        layers = result.comparisons[0].layers[0]
        rows = {
            layer: {name: Measured(float(values[i]), float("nan"), float("nan")) for name, values in same.items()}
            for i, layer in enumerate(layers)
        }
        used = {name: colours[name] for name in same}
        title = f"<h3>Each layer of {escape(first)} with the same layer of the others</h3>"
        chart = f"{title}{key(used)}{dot_chart(rows, used, 0.0, (0, 0.25, 0.5, 0.75, 1))}"
    heats = "".join(
        f"<figure><figcaption>{escape(one.first)} and {escape(one.second)}</figcaption>"
        f"{heat_map(one.cka, one.layers[0], one.layers[1], (one.first, one.second))}</figure>"
        for one in result.comparisons
    )
    note = (
        "CKA compares how two layers tell the same images apart: 1 if they do it in the same way (whatever the order, "
        "rotation or scale of their outputs), 0 if they have nothing in common. The first layers come first. Layers "
        "that stay near 1 were reused. Random weights show how much any network of this kind has in common with it; "
        "where that is much, the comparison is about what differs most between the images anyway, such as brightness."
    )
    every = f"<details><summary>Every layer with every layer</summary><div class='heats'>{heats}</div></details>"
    return f"<p class='note'>{note}</p>{chart}{every if chart else f'<div class=heats>{heats}</div>'}"


def _properties(result: FeatureResult, colours: Mapping[str, str]) -> str:
    if not any(one.properties for one in result.encoders):
        return ""
    titles = {one.name: one.title for one in result.properties}
    names = [name for name in titles if any(name in one.properties for one in result.encoders)]
    best = {name: max(one.properties[name].r2.value for one in result.encoders) for name in names}
    names.sort(key=lambda name: -best[name])
    rows = {
        titles[name]: {one.name: one.properties[name].r2 for one in result.encoders if name in one.properties}
        for name in names
    }
    note = (
        "Share of the differences between images that a linear model on the features predicts (R²), for patients "
        "that the model was not fitted to: 1 is perfect, 0 no better than guessing the mean, left of 0 worse. Bars: 95 "
        "% intervals over patients; an arrow: beyond the axis. Grey: random weights, which show what any network keeps."
    )
    units = {one.name: f"{one.title}, {one.unit}" if one.unit else one.title for one in result.properties}
    head = ["property", "mean (SD) in the images"]
    head += [one.name for one in result.encoders]
    head += [f"{one.name} beyond random" for one in result.encoders if not one.random]
    table = _table(head, [_property_cells(result, name, units[name]) for name in names], 1)
    return (
        f"<p class='note'>{note}</p>{key(colours)}{dot_chart(rows, colours, _R2_AXIS, (0, 0.25, 0.5, 0.75, 1))}"
        f"<details><summary>All numbers</summary>{table}</details>"
    )


def _property_cells(result: FeatureResult, name: str, title: str) -> list[str]:
    values = result.values[name]
    cells = [title, f"{values.mean():.3g} ({values.std(ddof=1):.2g})"]
    cells += [shown(one.properties[name].r2) if name in one.properties else "–" for one in result.encoders]
    for one in result.encoders:
        if not one.random:
            more = one.properties[name].beyond_random if name in one.properties else None
            cells.append("–" if more is None else shown(more))
    return [cell.replace("-", "−") if cell[:1] == "-" else cell for cell in cells]


def methods(result: FeatureResult) -> tuple[str, ...]:
    """How the numbers were computed, in words."""
    return (
        "Features are the encoder's own output, of the whole image, resized to a square.",
        f"CKA: linear, on whole activations of the same images (Kornblith et al. 2019), unbiased estimator over "
        f"{result.batches} batches (Nguyen et al. 2021). It compares what layers do with images, not their weights.",
        "Effective rank: exp of the entropy of the singular values, features centred (Roy and Vetterli 2007); RankMe: "
        "the same, not centred (Garrido et al. 2023). They cannot exceed the number of images.",
        f"Alignment and uniformity: Wang and Isola 2020 (alpha 2, t 2), features of length 1; views of {result.views}.",
        "Silhouette: cosine distance. Fisher ratio: variance between classes over variance within. Class distance: "
        "mean distance of two classes' means over the mean distance of an image to its class's mean. Features of "
        "length 1.",
        "Neighbours: largest cosine among the images of other patients.",
        "Properties: ridge regression on standardised features, its answers kept within the range of the training "
        "images and half of it on either side; up to 5 folds of whole patients; its penalty is chosen within the "
        "training patients; intervals by drawing patients with replacement, 2,000 times.",
        "Maps: PCA keeps distances; t-SNE and UMAP keep neighbourhoods only: sizes of clusters and distances between "
        f"them mean nothing. Seed {result.seed}.",
        "All of it describes features. Which encoder is the better start for a task only training on the task shows.",
    )
