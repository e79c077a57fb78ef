from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, LoadImaged, Orientationd, SaveImaged
from torch import nn

from monai_ssl_transfer.data.ct.slice_transforms import RestoreAffined
from monai_ssl_transfer.engines.transfer.inference import PrecisionInferer, SliceVolumeInferer
from monai_ssl_transfer.errors import DataError, TrainingError

PLS = np.array([[0, -1.0, 0, 0], [-1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1]])
"""(row, column, slice) to RAS: rows run to posterior, columns to the left."""


class BoneMarker(nn.Module):
    """Class 1 where the soft tissue channel (first) is above its middle: HU > 40."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(x.shape))
        return torch.cat((torch.zeros_like(x[:, :1]), x[:, :1]), dim=1)


def pls_volume(hu: torch.Tensor, spacing: tuple[float, float, float]) -> MetaTensor:
    affine = PLS @ np.diag([*spacing, 1.0])
    return MetaTensor(hu[None, None], affine=torch.tensor(affine))


def blocks(rows: int = 50, columns: int = 70, slices: int = 11) -> torch.Tensor:
    hu = torch.full((rows, columns, slices), -100.0)
    hu[10:30, 20:60, 3:7] = 200.0
    return hu


def test_native_pixels_give_the_labels_voxel_by_voxel():
    hu, network = blocks(), BoneMarker()
    result = SliceVolumeInferer(pixel_spacing=None, batch_size=4)(pls_volume(hu, (1, 1, 3)), network)
    assert result.dtype == torch.uint8
    assert result.shape == (1, 1, *hu.shape)
    assert torch.equal(result[0, 0].as_tensor(), (hu > 40).to(torch.uint8))
    assert [s[0] for s in network.shapes] == [4, 4, 3]
    assert all(s[2] == 64 and s[3] == 96 for s in network.shapes)  # padded to multiples of 32


def test_int16_and_batch_size_do_not_change_the_result():
    hu = blocks()
    expected = SliceVolumeInferer(1.7, batch_size=8)(pls_volume(hu, (0.8, 0.9, 3)), BoneMarker())
    for batch_size in (1, 3, 40):
        found = SliceVolumeInferer(1.7, batch_size=batch_size)(pls_volume(hu.short(), (0.8, 0.9, 3)), BoneMarker())
        assert torch.equal(found.as_tensor(), expected.as_tensor())


def test_resampling_uses_the_spacing_of_each_axis_and_keeps_the_place():
    hu, network = blocks(rows=100, columns=80), BoneMarker()
    result = SliceVolumeInferer(2.0)(pls_volume(hu, (1.0, 0.5, 3)), network)[0, 0].as_tensor()
    assert network.shapes[0][2:] == (64, 32)  # 50 x 20 pixels, padded
    truth = (hu > 40).to(torch.uint8)
    assert float((result & truth).sum() * 2 / (result.sum() + truth.sum())) > 0.93
    rows = torch.nonzero(result.amax(dim=(1, 2)))
    assert abs(float(rows.float().mean()) - 19.5) < 0.6  # no shift


def test_neighbours_come_from_below_and_above_and_repeat_at_the_ends():
    seen: list[torch.Tensor] = []

    class Recorder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.clone())
            return x[:, :2]

    levels = torch.arange(7.0) * 20 - 60
    volume = levels.view(1, 1, 7).expand(32, 32, 7)
    SliceVolumeInferer(None, channels="neighbours", batch_size=3)(pls_volume(volume, (1, 1, 1)), Recorder())
    hu = torch.cat(seen)[:, :, 0, 0]
    expected = torch.stack([levels[[max(i - 1, 0), i, min(i + 1, 6)]] for i in range(7)])
    windowed = ((expected + 160) / 400 - 0.5) / 0.25
    assert torch.allclose(hu, windowed, atol=1e-5)


def test_padding_below_air_becomes_air():
    seen: list[float] = []

    class Recorder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(float(x.std()))
            return x[:, :2]

    SliceVolumeInferer(1.3)(pls_volume(torch.full((40, 40, 2), -3024.0), (1, 1, 1)), Recorder())
    SliceVolumeInferer(1.3)(pls_volume(torch.full((40, 40, 2), -1024.0), (1, 1, 1)), Recorder())
    assert seen[0] == seen[1]


def test_wrong_input_is_refused():
    inferer = SliceVolumeInferer(1.0)
    with pytest.raises(DataError, match="one single-channel volume"):
        inferer(torch.zeros(2, 1, 8, 8, 8), BoneMarker())
    with pytest.raises(DataError, match="no affine"):
        inferer(torch.zeros(1, 1, 8, 8, 8), BoneMarker())
    with pytest.raises(DataError, match="oriented RAS"):
        inferer(MetaTensor(torch.zeros(1, 1, 8, 8, 8), affine=torch.eye(4)), BoneMarker())
    with pytest.raises(DataError, match="keeps the size"):
        inferer(pls_volume(torch.zeros(8, 8, 8), (1, 1, 1)), nn.Conv2d(3, 2, 3))
    with pytest.raises(TrainingError, match="precision"):
        SliceVolumeInferer(1.0, precision="fp8")


def test_bf16_returns_float32_logits_and_nearly_the_same_labels():
    network = nn.Conv2d(3, 2, 3, padding=1)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    low, high = PrecisionInferer("bf16")(x, network), PrecisionInferer("fp32")(x, network)
    assert low.dtype == high.dtype == torch.float32
    assert 0 < float((low - high).detach().abs().max()) < 0.1


def oblique(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


AFFINES = {
    "LAS": np.diag([-0.7, 0.7, 5.0]),
    "LPS": np.diag([-1.49, -1.49, 1.6]),
    "RAS": np.diag([3.0, 3.0, 3.0]),
    "oblique": oblique(0.2) @ np.diag([-0.8, -0.9, 2.5]),
    "sagittal": np.array([[0, 0, 3.0], [1.1, 0, 0], [0, 1.2, 0]]),
}


PLAIN_SAVING = {"resample": False, "separate_folder": False, "print_log": False}


@pytest.mark.parametrize("code", [(2, 1), (1, 0), (0, 2)], ids=["sform and qform", "qform", "sform"])
@pytest.mark.parametrize("name", AFFINES)
def test_masks_have_the_geometry_of_their_image(tmp_path: Path, name: str, code: tuple[int, int]):
    affine = np.eye(4)
    affine[:3, :3] = AFFINES[name]
    affine[:3, 3] = [123.4567, -98.7654, 1001.123]
    hu = np.full((30, 41, 12), -100, dtype=np.int16)
    hu[4:12, 20:36, 2:8] = 300
    image = nibabel.Nifti1Image(hu, affine)
    qform, sform = code
    image.set_qform(affine, code=qform)
    image.set_sform(affine, code=sform)
    nibabel.save(image, tmp_path / "ct.nii.gz")
    read = nibabel.load(tmp_path / "ct.nii.gz")
    preprocessing = Compose(
        [LoadImaged("image"), EnsureChannelFirstd("image"), Orientationd("image", axcodes="PLS", labels=None)]
    )
    postprocessing = Compose(
        [
            Invertd("pred", preprocessing, "image", nearest_interp=True),
            RestoreAffined("pred"),
            SaveImaged("pred", output_dir=tmp_path, output_postfix="seg", output_dtype=np.uint8, **PLAIN_SAVING),
        ]
    )
    item = preprocessing({"image": tmp_path / "ct.nii.gz"})
    item["pred"] = SliceVolumeInferer(None)(item["image"][None], BoneMarker())[0]
    postprocessing(item)
    mask = nibabel.load(tmp_path / "ct_seg.nii.gz")
    assert mask.shape == hu.shape
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(mask.dataobj), (hu > 40).astype(np.uint8))
    assert np.allclose(mask.affine, read.affine, rtol=0, atol=1e-4 if sform == 0 else 0)


def test_a_mask_on_another_grid_is_not_given_the_affine_of_the_image():
    pred = MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4), meta={"original_affine": np.diag([2.0, 2, 2, 1])})
    with pytest.raises(DataError, match="not on the grid"):
        RestoreAffined("pred")({"pred": pred})
