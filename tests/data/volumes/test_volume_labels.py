"""Label values, overlapping regions and stored units of volumes, against what numpy and hand make of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DiceLoss

from monai_ssl_transfer.data.volumes.intensities import (
    VolumeIntensitiesd,
    VolumeToChannels,
    fill_value,
    input_count,
    scaled,
)
from monai_ssl_transfer.data.volumes.label_transforms import TargetMasksd, TaskLabelsd
from monai_ssl_transfer.data.volumes.labels import decoded_labels, label_values, output_names, region_values
from monai_ssl_transfer.engines.transfer.volume_inference import LabelledVolumeInferer, check_network_input
from monai_ssl_transfer.engines.transfer.volume_loss import volume_loss
from monai_ssl_transfer.errors import DataError, TrainingError
from monai_ssl_transfer.evaluation.segmentation import compute_case_metrics
from monai_ssl_transfer.views.windows import HUToChannels

REGIONS = {"whole": [2, 1, 4], "core": [1, 4], "enhancing": [4]}


def test_values_and_names_of_outputs() -> None:
    assert label_values({"liver": [1, 2], "tumour": [2]}) == (0, 1, 2)
    assert label_values(REGIONS) == (0, 1, 2, 4)
    assert output_names({"liver": [1, 2], "tumour": [2]}) == ["background", "label 1", "tumour"]
    assert output_names(REGIONS, overlapping=True) == ["whole", "core", "enhancing"]
    assert region_values(REGIONS) == (2, 1, 4)
    assert region_values({"whole": [2, 1, 3], "core": [1, 3], "enhancing": [3]}) == (2, 1, 3)


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [({}, "names no class"), ({"a": [0]}, "from 1 to 255"), ({"a": "1"}, "whole numbers"), ({"a": [1.5]}, "whole")],
)
def test_wrong_classes_are_refused(classes: dict, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        label_values(classes)


def test_regions_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(DataError, match="outermost to the innermost"):
        output_names({"core": [1, 4], "whole": [1, 2, 4], "enhancing": [4]}, overlapping=True)


def test_written_values_have_the_regions_that_the_network_gave() -> None:
    truth = torch.tensor([[[0, 2, 1, 4], [4, 4, 2, 0]]])
    masks = torch.stack([torch.isin(truth, torch.tensor(values)) for values in REGIONS.values()], dim=1)
    written = decoded_labels(masks.float() * 8 - 4, REGIONS, overlapping=True)
    assert torch.equal(written, truth.to(torch.uint8))
    found = compute_case_metrics(written.numpy(), truth.numpy(), (1, 1, 1), REGIONS, surfaces=False)
    assert {name: one.dice for name, one in found.items()} == dict.fromkeys(REGIONS, 1.0)
    # an enhancing tumour outside of the whole one is still written as what the network saw
    assert decoded_labels(torch.tensor([-1.0, -1.0, 1.0]).view(1, 3, 1, 1), REGIONS, True).item() == 4


def test_exclusive_classes_are_written_as_the_values_of_the_files() -> None:
    logits = torch.eye(4).view(1, 4, 2, 2)
    assert decoded_labels(logits, REGIONS).flatten().tolist() == [0, 1, 2, 4]


def test_targets_of_regions_are_masks() -> None:
    classes = torch.tensor([[[0, 1], [2, 3]]])  # numbers of the values 0, 1, 2, 4
    masks = TargetMasksd("label", REGIONS, overlapping=True)({"label": classes})["label"]
    assert masks.tolist() == [[[0, 1], [1, 1]], [[0, 1], [0, 1]], [[0, 0], [0, 1]]]
    assert TargetMasksd("label", REGIONS)({"label": classes})["label"] is classes


def test_unknown_label_value_is_named() -> None:
    label = MetaTensor(torch.tensor([[[0.0, 3.0]]]), meta={"filename_or_obj": "seg.nii.gz"})
    with pytest.raises(DataError, match=r"seg.nii.gz holds the label values 3 .* only 0, 1, 2, 4"):
        TaskLabelsd("label", REGIONS)({"label": label})
    with pytest.raises(DataError, match=r"label values 1\.5"):
        TaskLabelsd("label", REGIONS)({"label": torch.tensor([1.5])})
    assert TaskLabelsd("label", REGIONS)({"label": torch.tensor([4.0])})["label"].dtype == torch.uint8


def test_scores_are_those_of_the_voxels_that_are_not_zero() -> None:
    rng = np.random.default_rng(0)
    values = rng.gamma(3, 100, (6, 7, 8)) * (rng.random((6, 7, 8)) > 0.4)
    inside = values[values != 0]
    expected = np.where(values != 0, (values - inside.mean()) / inside.std(), 0)
    found = scaled(values, "z_score", "x")
    assert np.abs(found / 200 - expected).max() < 1 / 200
    assert (found[values == 0] == 0).all()
    as_input = VolumeToChannels("z_score")(torch.from_numpy(found)[:, None])
    assert as_input.shape == (6, 3, 7, 8)
    assert torch.allclose(as_input[:, 2], torch.from_numpy(found) / 200)


def test_percentiles_are_those_of_the_voxels_that_are_not_zero() -> None:
    values = np.r_[np.zeros(500), np.arange(1, 1002)].reshape(1, 1, -1)
    found = scaled(values, "percentile", "x")
    low, high = np.percentile(np.arange(1, 1002), (0.5, 99.5))
    expected = np.where(values > 0, np.clip((values - low) / (high - low), 0, 1), 0)
    assert np.abs(found / 1000 - expected).max() < 1 / 1000
    # on the scale of an HU window, so that an encoder sees the range that it knows
    lowest, highest = (float(VolumeToChannels("percentile")(torch.tensor(v).view(1, 1, 1, 1))[0, 0]) for v in (0, 1000))
    assert (lowest, highest) == (-2.0, 2.0)


@pytest.mark.parametrize(("values", "sentence"), [(np.zeros(5), "shows nothing"), (np.r_[1, np.nan], "NaN")])
def test_volumes_that_cannot_be_scaled(values: np.ndarray, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        scaled(values, "z_score", "x.nii.gz")


def test_ct_stays_in_hu() -> None:
    hu = torch.full((1, 1, 4, 4), 40.0)
    assert torch.equal(VolumeToChannels("windows")(hu), HUToChannels("windows")(hu))
    assert torch.equal(VolumeIntensitiesd("image", "windows")({"image": hu[0]})["image"], hu[0])
    assert (fill_value("windows"), fill_value("z_score")) == (-1024, 0)


def test_channels_of_the_input() -> None:
    assert [input_count("windows"), input_count("single"), input_count("z_score"), input_count("z_score", [0, 2])] == [
        3, 1, 3, 2,
    ]  # fmt: skip
    with pytest.raises(DataError, match="one CT and not for 4 modalities"):
        input_count("windows", ["t1", "t1ce", "t2", "flair"])
    with pytest.raises(DataError, match="choose one of windows"):
        input_count("rgb")
    with pytest.raises(TrainingError, match="takes 3 channels but the task gives 4"):
        check_network_input(torch.nn.Conv2d(3, 2, 1), 4)


def test_modalities_are_chosen_in_order_and_a_missing_one_is_named() -> None:
    image = torch.arange(1, 49).float().view(4, 2, 3, 2)
    chosen = VolumeIntensitiesd("image", "z_score", [2, 0])({"image": image})["image"]
    assert torch.equal(chosen[1], torch.from_numpy(scaled(image[0].numpy(), "z_score", "")).float())
    with pytest.raises(DataError, match="has 4 volume"):
        VolumeIntensitiesd("image", "z_score", [4])({"image": image, "case": "a"})


def test_loss_of_regions_is_dice_and_binary_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 8, 8), (torch.rand(2, 3, 8, 8) > 0.6).float()
    expected = DiceLoss(sigmoid=True, batch=True)(logits, masks)
    expected = expected + torch.nn.functional.binary_cross_entropy_with_logits(logits, masks)
    assert torch.allclose(volume_loss(3, overlapping=True)(logits, masks), expected, atol=1e-5)
    with pytest.raises(DataError, match="2 numbers for 3 outputs"):
        volume_loss(3, weights=[1, 2])


def test_volume_of_modalities_becomes_a_mask_on_its_grid() -> None:
    affine = torch.tensor([[0, -3.0, 0, 5], [-3.0, 0, 0, 7], [0, 0, 4.0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    values = torch.zeros(1, 2, 20, 30, 4)
    values[0, 0, 5:9, 6:12, 1:3] = 200.0  # 1 SD
    values[0, 1, 7:9, 6:12, 1:3] = 200.0

    def network(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0], x[:, 1], x[:, 1]], dim=1) - 0.5

    network_of_two = LabelledVolumeInferer(None, REGIONS, "z_score", in_channels=2, overlapping=True)
    found = network_of_two(MetaTensor(values, affine=affine), network)
    assert found.shape == (1, 1, 20, 30, 4) and torch.equal(found.affine, affine)
    expected = torch.zeros(20, 30, 4, dtype=torch.uint8)
    expected[5:9, 6:12, 1:3] = 2
    expected[7:9, 6:12, 1:3] = 4
    assert torch.equal(found.as_tensor()[0, 0], expected)
    with pytest.raises(DataError, match="2 outputs but class_labels ask for 3"):
        network_of_two(MetaTensor(values, affine=affine), lambda x: x)
