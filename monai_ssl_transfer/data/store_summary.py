"""What a store holds, in a few numbers that name nobody: for the card of an encoder and for the record of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_ssl_transfer.data.ct.body_part import BodyPart


def store_summary(store: Any) -> dict[str, Any]:
    """Count what a store holds.

    Args:
        store: a `SliceStore`, or `MixedStores`, or what has a store's `pixels`, `index`, `series_count`
            and `patient_numbers()`.

    Returns:
        Plain values: "modality", the number of slices or frames, of series, of patients or groups, of labelled frames,
        and of slices of each body part; of mixed stores the number of images and the summary of each.
    """
    if hasattr(store, "shares"):
        stores = [store_summary(part) | {"share": share} for part, share in zip(store.parts, store.shares, strict=True)]
        return {"modality": "mixed", "images": len(store), "stores": stores}
    groups = len(np.unique(store.patient_numbers()))
    if store.pixels == "rgb":
        labelled = int((store.index["label"] >= 0).sum())
        return {"modality": "endoscopy", "frames": len(store), "groups": groups, "labelled": labelled}
    parts, counts = np.unique(store.index["body_part"], return_counts=True)
    names = {BodyPart(int(part)).name.lower(): int(count) for part, count in zip(parts, counts, strict=True)}
    return {"modality": "CT", "slices": len(store), "series": store.series_count, "patients": groups, "parts": names}
