"""Tiny data for the bundles: liver phantoms in LiTS layout, and a store of slices of six body regions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_ssl_transfer.data.phantoms.ct_scan import PhantomOptions
from monai_ssl_transfer.data.phantoms.ct_writers import write_lits_layout
from monai_ssl_transfer.data.store import SeriesEntry
from monai_ssl_transfer.data.store_writer import SliceStoreWriter, encode_slice


@pytest.fixture(scope="session")
def lits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "lits"
    write_lits_layout(folder, 4, PhantomOptions(size=64, slices=14, slice_spacing=(10.0, 12.0), tumour_share=1.0))
    return folder


@pytest.fixture(scope="session")
def region_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients with two slices each; a region is a disc of its own size and HU, so that it can be learnt."""
    folder = tmp_path_factory.mktemp("store") / "store"
    rng = np.random.default_rng(0)
    grid = np.hypot(*np.meshgrid(np.arange(48) - 23.5, np.arange(48) - 23.5))
    with SliceStoreWriter(folder) as writer:
        for patient in range(12):
            region = patient % 6
            hu = np.where(grid < 8 + 2.5 * region, -50 + 40 * region, -1000) + rng.normal(0, 10, (2, 48, 48))
            entry = SeriesEntry(
                f"{patient:032x}", f"{100 + patient:032x}", "dicom", 5.0, False, tuple(np.eye(4).ravel())
            )
            slices = [
                encode_slice(one.astype(np.int16), position=5.0 * z, spacing=(4.0, 4.0), body_part=region)
                for z, one in enumerate(hu)
            ]
            writer.append(entry, slices)
    return folder
