from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_ssl_transfer.data.ct.label_checks import KnownLabelsd, SameGridd
from monai_ssl_transfer.errors import DataError


def volume(shape: tuple[int, ...] = (4, 5, 6), shift: float = 0.0, name: str = "a.nii.gz") -> MetaTensor:
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    affine[0, 3] = shift
    return MetaTensor(torch.zeros(1, *shape), affine=torch.tensor(affine), meta={"filename_or_obj": name})


def test_unknown_labels_are_refused_by_name():
    label = volume(name="segmentation-7.nii.gz")
    label[0, 1, 2, 3] = 3
    with pytest.raises(DataError, match=r"segmentation-7\.nii\.gz holds the label 3"):
        KnownLabelsd("label", classes=3)({"label": label})
    with pytest.raises(DataError, match="the label of case 12"):
        KnownLabelsd("label", classes=3)({"label": label.as_tensor(), "case": "12"})
    label[0, 1, 2, 3] = 2
    assert KnownLabelsd("label", classes=3)({"label": label})["label"] is label


@pytest.mark.parametrize("other", [volume((4, 5, 7)), volume(shift=1.5)])
def test_labels_on_another_grid_are_refused(other: MetaTensor):
    with pytest.raises(DataError, match="not on the grid"):
        SameGridd("label")({"image": volume(), "label": other})


def test_rounding_of_the_header_is_no_other_grid():
    data = {"image": volume(), "label": volume(shift=1e-3)}
    assert SameGridd("label")(data)["label"] is data["label"]
