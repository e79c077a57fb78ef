"""What the report on features holds: for every encoder, and between the first one and every other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from monai_ssl_transfer.evaluation.features.properties import Property
from monai_ssl_transfer.evaluation.features.separability import Separability
from monai_ssl_transfer.evaluation.robustness import Measured


@dataclass(frozen=True)
class Classes:
    """What the classes are in a feature space.

    Args:
        separability: silhouette, Fisher ratio, class distance.
        same_class: share of the nearest images of other patients that have the image's class; None with one patient.
        chance: the share that chance would give.
    """

    separability: Separability
    same_class: Measured | None
    chance: float


@dataclass(frozen=True)
class Encoded:
    """How well a property is read out of the features.

    Args:
        r2: see `recovered.Recovered`.
        beyond_random: R2 less that of random weights of the same architecture, with the interval of the difference;
            None for those themselves.
    """

    r2: Measured
    beyond_random: Measured | None = None


@dataclass(frozen=True)
class EncoderResult:
    """One encoder.

    Args:
        name: for readers.
        source: its file or "random weights".
        sha256: of the file.
        random: whether its weights are random.
        architecture: one of `networks.encoder_names()`.
        channels: what it is fed.
        image_size: side in pixels.
        width: length D of its features.
        effective_rank: of Roy and Vetterli, centred.
        rankme: of Garrido et al.
        explained: share of the variance of the first principal components.
        alignment: of two views.
        uniformity: of the images.
        classes: None without labels.
        neighbours: (N, k) positions of the most alike images of other patients, -1 for none; None with one patient.
        cosines: (N, k) of them.
        planes: (N, 2) by method.
        properties: by name; those that never vary are not there.
    """

    name: str
    source: str
    sha256: str
    random: bool
    architecture: str
    channels: str
    image_size: int
    width: int
    effective_rank: float
    rankme: float
    explained: tuple[float, ...]
    alignment: float
    uniformity: float
    classes: Classes | None
    neighbours: np.ndarray | None
    cosines: np.ndarray | None
    planes: Mapping[str, np.ndarray]
    properties: Mapping[str, Encoded]


@dataclass(frozen=True)
class Comparison:
    """CKA between the layers of two encoders.

    Args:
        first: name of the encoder that the others are compared with.
        second: name.
        layers: names of the layers of each.
        cka: (layers of the first, layers of the second).
    """

    first: str
    second: str
    layers: tuple[tuple[str, ...], tuple[str, ...]]
    cka: np.ndarray

    @property
    def same_layer(self) -> np.ndarray | None:
        """(layers,) CKA of each layer with itself, where both have the same layers."""
        return np.diagonal(self.cka) if self.layers[0] == self.layers[1] else None


@dataclass(frozen=True)
class FeatureResult:
    """The whole report.

    Args:
        title: of the data.
        images: how many were looked at.
        total: how many there are.
        patients: of those looked at.
        photographs: whether the images are photographs.
        names: N names of the images.
        groups: N patients.
        labels: N classes, () for none.
        labels_from: what the classes are.
        encoders: in the order given, random weights last.
        comparisons: the first encoder with every other one.
        batches: over which the CKA was averaged.
        views: method whose views were used.
        seed: of everything random.
        properties: what was measured of the images.
        values: (N,) by property.
        notes: what was not computed, and why.
    """

    title: str
    images: int
    total: int
    patients: int
    photographs: bool
    names: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...]
    labels_from: str
    encoders: tuple[EncoderResult, ...]
    comparisons: tuple[Comparison, ...]
    batches: int
    views: str
    seed: int
    properties: tuple[Property, ...]
    values: Mapping[str, np.ndarray]
    notes: tuple[str, ...]
