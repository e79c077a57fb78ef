"""Classes of a task, by the values of its label files: what the network gives out for them, and what is written.

A task is a dictionary of names and label values, such as ``{"liver": [1, 2], "tumour": [2]}``. Usually the network
tells the values themselves apart (softmax) and the dictionary says how they are judged. Where ``overlapping``, it has
one output (sigmoid) for each named region instead, as is usual for the regions of BraTS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from monai_ssl_transfer.errors import DataError

Classes = Mapping[str, Sequence[int]]


def label_values(class_labels: Classes) -> tuple[int, ...]:
    """Values that a label file may hold, ascending, 0 for the background first.

    Args:
        class_labels: label values by name.

    Raises:
        DataError: no class, or a value that is no whole number from 1 to 255.
    """
    if not class_labels:
        raise DataError("class_labels names no class: give names with label values, such as {'spleen': [1]}.")
    found = {0}
    for name, values in class_labels.items():
        given = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
        if not given or any(isinstance(value, bool) or not isinstance(value, int) for value in given):
            raise DataError(f"class_labels gives {name!r} the values {values!r}: give a list of whole numbers.")
        if min(given) < 1 or max(given) > 255:
            raise DataError(f"class_labels gives {name!r} the values {given}: choose numbers from 1 to 255.")
        found.update(given)
    return tuple(sorted(found))


def region_values(class_labels: Classes) -> tuple[int, ...]:
    """The value that is written for each overlapping region: the one that no later region has.

    A mask is made by painting the regions in their order, each over the ones before, as in nnU-Net
    (``regions_class_order``) and as the BraTS challenge takes results.

    Args:
        class_labels: regions, from the outermost to the innermost.

    Raises:
        DataError: a region does not keep exactly one value for itself.
    """
    regions = list(class_labels.items())
    kept = []
    for number, (name, values) in enumerate(regions):
        later = {value for _, others in regions[number + 1 :] for value in others}
        own = [value for value in values if value not in later]
        if len(own) != 1:
            raise DataError(
                f"the overlapping region {name!r} keeps the label values {own} for itself: order class_labels from the "
                "outermost to the innermost region, each with one value that no later one has."
            )
        kept.append(own[0])
    return tuple(kept)


def output_names(class_labels: Classes, overlapping: bool = False) -> list[str]:
    """Names of the outputs of the network, in their order.

    Args:
        class_labels: label values by name.
        overlapping: one output per name (sigmoid); else one per label value, background first (softmax).
    """
    values = label_values(class_labels)
    if overlapping:
        region_values(class_labels)
        return list(class_labels)
    own = {tuple(of): name for name, of in class_labels.items()}
    return ["background", *(own.get((value,), f"label {value}") for value in values[1:])]


def output_weights(weights: Sequence[float] | None, outputs: int) -> Tensor:
    """(outputs,) weights of the outputs in the loss; ones where none are given.

    Raises:
        DataError: another number of weights.
    """
    if weights is not None and len(weights) != outputs:
        raise DataError(f"class_weights are {len(weights)} numbers for {outputs} outputs: give one each, or null.")
    return torch.ones(outputs) if weights is None else torch.tensor([float(weight) for weight in weights])


def decoded_labels(logits: Tensor, class_labels: Classes, overlapping: bool = False) -> Tensor:
    """Logits to label values.

    Args:
        logits: (B, outputs, H, W).
        class_labels: label values by name.
        overlapping: a voxel has every region whose logit is above 0, and is written as the innermost one.

    Returns:
        (B, H, W) uint8 values as in label files.
    """
    if not overlapping:
        values = torch.tensor(label_values(class_labels), dtype=torch.uint8, device=logits.device)
        return values[logits.argmax(dim=1)]
    labels = torch.zeros_like(logits[:, 0], dtype=torch.uint8)
    for number, value in enumerate(region_values(class_labels)):
        labels[logits[:, number] > 0] = value
    return labels


def region_masks(classes: Tensor, class_labels: Classes) -> Tensor:
    """Classes (numbers of `label_values`) of (1, ...) to one mask for each region, (regions, ...) float32."""
    values = label_values(class_labels)
    numbers = [
        torch.tensor([values.index(value) for value in of], device=classes.device) for of in class_labels.values()
    ]
    return torch.cat([torch.isin(classes.long(), of) for of in numbers]).float()
