"""Everything that the report on features says, from encoders and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monai_ssl_transfer.evaluation.features.ct_properties import CT_PROPERTIES, ct_properties
from monai_ssl_transfer.evaluation.features.grouped import measured
from monai_ssl_transfer.evaluation.features.images import ChosenImages
from monai_ssl_transfer.evaluation.features.neighbours import nearest_of_others, same_class_share
from monai_ssl_transfer.evaluation.features.passes import Passed, pass_images
from monai_ssl_transfer.evaluation.features.photograph_properties import PHOTOGRAPH_PROPERTIES, photograph_properties
from monai_ssl_transfer.evaluation.features.plane import FEWEST, plane
from monai_ssl_transfer.evaluation.features.properties import Property
from monai_ssl_transfer.evaluation.features.recovered import FEWEST_GROUPS, Recovered, recover
from monai_ssl_transfer.evaluation.features.result import Classes, Comparison, Encoded, EncoderResult, FeatureResult
from monai_ssl_transfer.evaluation.features.separability import separability
from monai_ssl_transfer.evaluation.features.sources import FeatureEncoder
from monai_ssl_transfer.evaluation.features.spectrum import effective_rank, explained, rankme
from monai_ssl_transfer.evaluation.features.uniformity import alignment, uniformity
from monai_ssl_transfer.evaluation.robustness import FEW_GROUPS

_COMPONENTS = 20


@dataclass(frozen=True)
class MeasureOptions:
    """Settings of the report.

    Args:
        planes: methods of `plane`.
        neighbours: k.
        views: method whose first two views give alignment.
        device: where the encoders run.
        batch_size: images at once.
        seed: of everything random.
    """

    planes: tuple[str, ...] = ("PCA", "t-SNE")
    neighbours: int = 5
    views: str = "simclr"
    device: str = "cpu"
    batch_size: int = 64
    seed: int = 0


def measure_features(
    encoders: Sequence[FeatureEncoder],
    images: ChosenImages,
    title: str,
    options: MeasureOptions,
    told: Callable[[int], object] = lambda done: None,
) -> FeatureResult:
    """Send images through encoders and measure the features.

    Args:
        encoders: of `read_encoders`.
        images: of `choose_images`.
        title: of the data.
        options: settings.
        told: called with the number of images that went through all encoders.
    """
    passed = pass_images(encoders, images, options.views, options.device, options.batch_size, options.seed, told)
    properties, values = image_properties(images)
    recovered = [_recovered(vectors, values, images, options.seed) for vectors in passed.vectors]
    results = tuple(
        _encoder(one, passed, number, images, options, _encoded(encoders, recovered, number, images))
        for number, one in enumerate(encoders)
    )
    comparisons = tuple(
        Comparison(encoders[0].name, other.name, (passed.layers[0], passed.layers[i]), passed.cka[i - 1])
        for i, other in enumerate(encoders[1:], 1)
    )
    patients = len(set(images.groups))
    return FeatureResult(
        title=title,
        images=len(images),
        total=images.total,
        patients=patients,
        photographs=images.photographs,
        names=images.names,
        groups=images.groups,
        labels=images.labels,
        labels_from=images.labels_from,
        encoders=results,
        comparisons=comparisons,
        batches=passed.batches,
        views=options.views,
        seed=options.seed,
        properties=properties,
        values=values,
        notes=tuple(_notes(encoders, images, patients, values)),
    )


def image_properties(images: ChosenImages) -> tuple[tuple[Property, ...], Mapping[str, np.ndarray]]:
    """What is measured of the images, and (N,) values by name, at the images' own size."""
    store, rows = images.store, []
    for number in images.numbers.tolist():
        if images.photographs:
            rows.append(photograph_properties(store.read(number)))
        else:
            record = store.index[number]
            rows.append(
                ct_properties(store.read(number), (float(record["row_spacing"]), float(record["column_spacing"])))
            )
    known = PHOTOGRAPH_PROPERTIES if images.photographs else CT_PROPERTIES
    return known, {one.name: np.array([row[one.name] for row in rows]) for one in known}


def _recovered(
    vectors: np.ndarray, values: Mapping[str, np.ndarray], images: ChosenImages, seed: int
) -> dict[str, Recovered]:
    if len(set(images.groups)) < FEWEST_GROUPS:
        return {}
    return recover(vectors, values, images.groups, seed)


def _encoded(
    encoders: Sequence[FeatureEncoder], recovered: Sequence[dict[str, Recovered]], number: int, images: ChosenImages
) -> dict[str, Encoded]:
    """R2 by property, and what it has more than random weights of the same architecture and input."""
    patients, own = len(set(images.groups)), encoders[number]
    alike = [i for i, one in enumerate(encoders) if one.random and one.fed == own.fed]
    found = {}
    for name, one in recovered[number].items():
        more = None
        if not own.random and alike:
            more = measured(one.ratios - recovered[alike[0]][name].ratios, patients)
        found[name] = Encoded(one.r2, more)
    return found


def _encoder(
    one: FeatureEncoder,
    passed: Passed,
    number: int,
    images: ChosenImages,
    options: MeasureOptions,
    properties: Mapping[str, Encoded],
) -> EncoderResult:
    vectors = passed.vectors[number]
    near, cosines = None, None
    if len(set(images.groups)) > 1:
        near, cosines = nearest_of_others(vectors, images.groups, options.neighbours)
    return EncoderResult(
        name=one.name,
        source=one.source,
        sha256=one.sha256,
        random=one.random,
        architecture=one.settings.encoder_name,
        channels=one.settings.channels,
        image_size=one.settings.image_size,
        width=vectors.shape[1],
        effective_rank=effective_rank(vectors),
        rankme=rankme(vectors),
        explained=tuple(float(share) for share in explained(vectors)[:_COMPONENTS]),
        alignment=alignment(*passed.views[number]),
        uniformity=uniformity(vectors),
        classes=_classes(vectors, near, images, options.seed) if images.labels else None,
        neighbours=near,
        cosines=cosines,
        planes={name: plane(vectors, name, options.seed) for name in options.planes if len(images) >= FEWEST[name]},
        properties=properties,
    )


def _classes(vectors: np.ndarray, near: np.ndarray | None, images: ChosenImages, seed: int) -> Classes:
    """Of the images that have a class; neighbours are those of all images."""
    labels = np.array(images.labels)
    having = labels != ""
    groups = np.array(images.groups)
    apart = separability(vectors[having], labels[having], seed)
    if near is None or len(set(groups[having])) < 2:
        return Classes(apart, None, float("nan"))
    near = nearest_of_others(vectors[having], groups[having].tolist(), near.shape[1])[0]
    share, chance = same_class_share(near, labels[having].tolist(), groups[having].tolist(), seed)
    return Classes(apart, share, chance)


def _notes(
    encoders: Sequence[FeatureEncoder], images: ChosenImages, patients: int, values: Mapping[str, np.ndarray]
) -> list[str]:
    """What a reader must know before believing a number."""
    what = "patients" if not images.photographs else "groups of photographs (patients, sequences or folders)"
    notes = []
    if patients < FEW_GROUPS:
        notes.append(f"Only {patients} {what}: intervals over them are too narrow to be believed.")
    if patients < FEWEST_GROUPS:
        notes.append(
            f"What the features tell about an image was not computed: it is cross-validated by patient and needs "
            f"{FEWEST_GROUPS} of them."
        )
    if patients < 2:
        notes.append("All images are of one patient: no neighbours of other patients can be shown.")
    sizes = {one.settings.image_size for one in encoders}
    if len(sizes) > 1:
        notes.append(
            f"The encoders see the images at different sizes ({', '.join(map(str, sorted(sizes)))} pixels): part of "
            "a difference may be due to that; --image-size gives all of them the same."
        )
    if images.labels and "" in images.labels:
        notes.append(f"{images.labels.count('')} of {len(images)} images have no class; they are left out of its rows.")
    flat = [name for name, value in values.items() if np.ptp(value) == 0]
    if flat:
        notes.append(f"The same in all images, so not looked for in the features: {', '.join(flat)}.")
    return notes
