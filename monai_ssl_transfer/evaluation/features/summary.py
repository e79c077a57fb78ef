"""What the numbers on features mean, in sentences that claim no more than they show."""

from __future__ import annotations

import math

import numpy as np

from monai_ssl_transfer.evaluation.features.result import Comparison, EncoderResult, FeatureResult
from monai_ssl_transfer.evaluation.robustness import Measured

_GOOD = 0.5
ACQUISITION = ("noise", "pixel_size", "border", "aspect")
"""Properties of how an image was taken or cut, not of what it shows."""


def sentences(result: FeatureResult) -> list[str]:
    """The findings of a report, most wanted first."""
    own = [one for one in result.encoders if not one.random]
    names = {one.name for one in own}
    found = [text for one in result.comparisons if one.second in names and (text := _changed(one))]
    found += [text for one in own for text in (_of_classes(one), _told(one, result), _shortcuts(one, result)) if text]
    found += [_spread(own or list(result.encoders), result)]
    return found


def _changed(one: Comparison) -> str:
    values = one.same_layer
    if values is None or not np.isfinite(values).any():
        return ""
    layers = one.layers[0]
    least = int(np.nanargmin(values))
    kept = [i for i, value in enumerate(values) if value >= 0.9]
    early = next((i for i in range(len(values)) if i not in kept), len(values))
    start = (
        "no layer sees the images as before"
        if not kept
        else "every layer sees the images almost as before (CKA at least 0.9)"
        if early == len(values)
        else f"layers up to {layers[early - 1]} see the images almost as before (CKA at least 0.9)"
        if early
        else f"{len(kept)} of {len(values)} layers see the images almost as before (CKA at least 0.9)"
    )
    return f"From {one.first} to {one.second}: {start}; {layers[least]} differs most (CKA {values[least]:.2f})."


def _of_classes(one: EncoderResult) -> str:
    if one.classes is None or one.classes.same_class is None or one.neighbours is None:
        return ""
    share = one.classes.same_class
    return (
        f"{one.name}: of the {one.neighbours.shape[1]} most alike images of other patients, {percent(share)} have the "
        f"image's own class; chance would give {100 * one.classes.chance:.0f} %."
    )


def _told(one: EncoderResult, result: FeatureResult) -> str:
    titles = {known.name: known.title.lower() for known in result.properties}
    good = sorted(
        (name for name, found in one.properties.items() if found.r2.low > 0 and found.r2.value >= _GOOD),
        key=lambda name: -one.properties[name].r2.value,
    )
    if not one.properties:
        return ""
    if not good:
        return f"{one.name}: a linear model on its features reads no property of the image well (R² of at least 0.5)."
    listed = ", ".join(f"{titles[name]} ({one.properties[name].r2.value:.2f})" for name in good[:5])
    more = [n for n in good if (gain := one.properties[n].beyond_random) is not None and gain.low > 0]
    beyond = (
        f" Better than from random weights: {', '.join(titles[name] for name in more)}."
        if more
        else " None of them demonstrably better than from random weights."
    )
    return f"{one.name}: a linear model on its features tells of patients it has not seen (R²): {listed}.{beyond}"


def _shortcuts(one: EncoderResult, result: FeatureResult) -> str:
    titles = {known.name: known.title.lower() for known in result.properties}
    known = [
        titles[name]
        for name in ACQUISITION
        if name in one.properties and one.properties[name].r2.low > 0 and one.properties[name].r2.value >= _GOOD
    ]
    if not known:
        return ""
    return (
        f"{one.name}: its features also tell how the image was taken or cut ({', '.join(known)}). A model on top can "
        "use that as a shortcut where classes differ in it."
    )


def _spread(encoders: list[EncoderResult], result: FeatureResult) -> str:
    told = "; ".join(f"{one.name} {one.effective_rank:.0f} of {min(one.width, result.images - 1)}" for one in encoders)
    return f"Directions in which features differ between images (effective rank, of as many as there could be): {told}."


def percent(one: Measured) -> str:
    """A share with its interval."""
    if not math.isfinite(one.low):
        return f"{100 * one.value:.0f} %"
    return f"{100 * one.value:.0f} % ({100 * one.low:.0f} to {100 * one.high:.0f})"
