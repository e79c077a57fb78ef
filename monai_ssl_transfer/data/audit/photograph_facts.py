"""Reading a photograph and its mask once."""

from __future__ import annotations

import hashlib

import numpy as np

from monai_ssl_transfer.data.audit.facts import LabelFacts, PhotographFacts
from monai_ssl_transfer.data.audit.items import Item
from monai_ssl_transfer.data.audit.label_facts import look_at_mask
from monai_ssl_transfer.data.endoscopy.frames import read_frame
from monai_ssl_transfer.data.endoscopy.near_duplicates import difference_hash
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.errors import DataError


def look_at_photograph(item: Item) -> PhotographFacts:
    """Read a photograph and its mask."""
    label = look_at_mask(item.label) if item.label else None
    try:
        frame = read_frame(item.image)
    except DataError as error:
        return PhotographFacts(problem=("damaged", str(error).replace(item.image, "it").split(": ")[0]), label=label)
    return _facts_of(frame, label)


def _facts_of(frame: np.ndarray, label: LabelFacts | None, row: int = -1) -> PhotographFacts:
    digest = hashlib.blake2b(repr(frame.shape).encode() + frame.tobytes(), digest_size=16).hexdigest()
    blank = bool((frame == frame[0, 0]).all())
    return PhotographFacts(None, frame.shape[:2], blank, digest, 0 if blank else difference_hash(frame), label, row)


def look_at_stored_photographs(item: Item) -> list[PhotographFacts]:
    """Read the frames of a series of a store; pixels as stored, so JPEG copies are found by their hash alone."""
    store = SliceStore(item.image)
    found = []
    for number in store.series_range(item.series):
        try:
            mask = store.read_mask(number)
            label = None
            if mask is not None:
                values, counts = np.unique(mask, return_counts=True)
                labels = {int(v): float(n / mask.size) for v, n in zip(values, counts, strict=True)}
                label = LabelFacts(shape=mask.shape, labels=labels)
            found.append(_facts_of(store.read(number), label, number))
        except DataError as error:
            sentence = str(error).replace(str(item.image), "the store")
            found.append(PhotographFacts(problem=("damaged", sentence), row=number))
    return found
