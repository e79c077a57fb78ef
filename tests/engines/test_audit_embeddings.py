from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from PIL import Image

from monai_ssl_transfer.data.audit.facts import PhotographFacts
from monai_ssl_transfer.data.audit.items import PHOTOGRAPH, SCAN, Item
from monai_ssl_transfer.data.audit.records import Record
from monai_ssl_transfer.engines.embedding.audit_embeddings import record_embedder
from monai_ssl_transfer.networks import build_encoder
from monai_ssl_transfer.weights import EncoderCard, save_encoder


def test_photographs_and_scans_go_through_the_encoder_of_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = save_encoder(build_encoder("resnet18"), tmp_path, EncoderCard("resnet18", image_size=64))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (50, 60, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    nib.save(nib.Nifti1Image(rng.normal(0, 300, (30, 40, 5)).astype(np.int16), np.eye(4)), tmp_path / "a.nii")
    photograph = Record(Item(PHOTOGRAPH, "a", "a.png", str(tmp_path / "a.png")), PhotographFacts())
    scan = Record(Item(SCAN, "a", "a.nii", str(tmp_path / "a.nii")), PhotographFacts())
    vectors = record_embedder(file)([photograph, scan, photograph])
    assert vectors.shape == (3, 512)
    np.testing.assert_allclose(vectors[0], vectors[2], rtol=1e-4, atol=1e-5)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-3)
