"""Layouts of volume tasks as they lie on disk: what is listed, how it is divided, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_ssl_transfer.data.ct.labelled_cases import DrawnDivision
from monai_ssl_transfer.data.ct.labelled_volumes import ForegroundBalancedSlices, SliceDrawOptions
from monai_ssl_transfer.data.phantoms.volume_layouts import write_brats_layout, write_btcv_layout, write_msd_layout
from monai_ssl_transfer.data.volumes.cases import VolumeSource, divide_volumes, read_case_volume, volumes_to_evaluate
from monai_ssl_transfer.data.volumes.description import described_channels, described_classes, described_volumes
from monai_ssl_transfer.data.volumes.intensities import scaled
from monai_ssl_transfer.data.volumes.layouts import labelled_cases, volumes_to_segment
from monai_ssl_transfer.errors import DataError

MODALITIES = ("FLAIR", "T1w", "t1gd", "T2w")


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    file = folder / "dataset.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return folder


def no_model(folder: Path) -> Path:
    return folder / "models" / "model.pt"


def test_description_says_classes_channels_and_modalities(tmp_path: Path) -> None:
    ct = write_msd_layout(tmp_path / "ct", 2)
    mr = write_msd_layout(tmp_path / "mr", 2, MODALITIES)
    model = no_model(tmp_path)
    assert described_classes(ct, model) == {"liver": [1], "spleen": [2]}
    assert (described_channels(ct, model), described_channels(mr, model)) == ("windows", "z_score")
    assert described_volumes(ct, model) is None
    assert described_volumes(mr, model) == [0, 1, 2, 3]
    assert described_volumes(mr, model, ["T2w", 0]) == [3, 0]
    with pytest.raises(DataError, match="no modality 'PET': choose among 0 FLAIR, 1 T1w"):
        described_volumes(mr, model, ["PET"])
    change(ct, lambda content: content.update(labels={"background": 0, "aorta": 3}))  # nnU-Net's way round
    assert described_classes(ct, model) == {"aorta": [3]}


def test_without_a_description_the_run_knows(tmp_path: Path) -> None:
    mr = write_msd_layout(tmp_path / "mr", 2, MODALITIES)
    run = tmp_path / "run"
    run.mkdir()
    kept = {"class_labels": {"liver": [1], "spleen": [2]}, "channels": "percentile", "volumes": [3, 0]}
    (run / "config.json").write_text(json.dumps(kept))
    model, elsewhere = run / "models" / "model.pt", tmp_path / "elsewhere"
    assert described_classes(elsewhere, model) == kept["class_labels"]
    assert described_channels(elsewhere, model) == "percentile"
    assert described_volumes(elsewhere, model) == [3, 0]
    with pytest.raises(DataError, match="had percentile"):
        described_channels(mr, model)
    with pytest.raises(DataError, match="had \\[3, 0\\]"):
        described_volumes(mr, model)
    change(mr, lambda content: content["labels"].update({"3": "aorta"}))
    with pytest.raises(DataError, match="give the data set of that run"):
        described_classes(mr, model)
    with pytest.raises(DataError, match=r"there is no .*dataset.json"):
        described_classes(elsewhere, no_model(tmp_path))


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda c: c.pop("training"), "is not the description"),
        (lambda c: c.update(training={"image": "x"}), "is not the description"),
        (lambda c: c.update(labels=[1]), "is not the description"),
        (lambda c: c["training"].append({"image": "./imagesTr/case_0001.nii.gz"}), "without image and label"),
        (lambda c: c["training"].append(c["training"][0]), "twice"),
        (lambda c: c["training"][0].update(label="./labelsTr/gone.nii.gz"), "gone.nii.gz is missing but"),
        (lambda c: c.update(training=[]), "no labelled case"),
    ],
)
def test_damaged_descriptions_are_refused(edit: Callable[[dict[str, Any]], object], sentence: str, tmp_path: Path):
    folder = change(write_msd_layout(tmp_path, 1, size=16), edit)
    with pytest.raises(DataError, match=sentence) as refused:
        labelled_cases(folder, "msd")
    assert "dataset.json" in str(refused.value) or str(folder) in str(refused.value)


def test_a_description_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="repair or remove it"):
        labelled_cases(tmp_path, "msd")


def test_amos_by_scanner_and_with_its_own_validation(tmp_path: Path) -> None:
    folder = write_msd_layout(tmp_path, 3, name="amos", size=16)
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind / "amos_0003.nii.gz").rename(folder / kind / "amos_0507.nii.gz")

    def edit(content: dict[str, Any]) -> None:
        content["training"][2] = {key: f"./{key}sTr/amos_0507.nii.gz" for key in ("image", "label")}
        content["validation"] = [content["training"].pop(0), {"image": "./imagesTr/amos_0002.nii.gz"}]

    change(folder, edit)
    ct, mr = (labelled_cases(folder, "amos", modality=one) for one in ("CT", "MR"))
    assert [case["case"] for case in ct] == ["amos_0001", "amos_0002"]
    assert [case["case"] for case in mr] == ["amos_0507"]
    with pytest.raises(DataError, match=r"choose CT .* or MR"):
        labelled_cases(folder, "amos")
    source = VolumeSource(folder, "amos", modality="CT")
    divided = divide_volumes(source, tmp_path / "run")
    assert [[case["case"] for case in divided[part]] for part in ("train", "validation")] == [
        ["amos_0002"],
        ["amos_0001"],
    ]
    assert volumes_to_evaluate(source, tmp_path / "run")["evaluate"] == divided["validation"]
    named = divide_volumes(
        source, tmp_path / "named", test_cases=["amos_0001"], draw=DrawnDivision(validation_fraction=0)
    )
    assert [case["case"] for case in named["test"]] == ["amos_0001"] and not named["validation"]
    assert volumes_to_evaluate(source, tmp_path / "named")["evaluate"] == named["test"]


def test_btcv_pairs_by_number(tmp_path: Path) -> None:
    folder = write_btcv_layout(tmp_path, 3, classes=2)
    cases = labelled_cases(folder, "btcv")
    assert [(case["case"], Path(case["label"]).name) for case in cases] == [
        (f"000{number}", f"label000{number}.nii.gz") for number in (1, 2, 3)
    ]
    (folder / "Training" / "label" / "label0002.nii.gz").unlink()
    with pytest.raises(DataError, match=r"img0002.nii.gz has no label0002.nii.gz"):
        labelled_cases(folder, "btcv")
    (folder / "Training" / "img" / "img0002.nii.gz").unlink()
    (folder / "Training" / "img" / "img0003.nii.gz").unlink()
    with pytest.raises(DataError, match=r"label0003.nii.gz has no img0003"):
        labelled_cases(folder, "btcv")


@pytest.mark.parametrize(("year", "endings"), [(2020, ["t1ce", "flair"]), (2023, ["t1c", "t2f"])])
def test_brats_by_ending_and_by_patient(year: int, endings: list[str], tmp_path: Path) -> None:
    folder = write_brats_layout(tmp_path / "brats", 4, year)
    cases = labelled_cases(folder, "brats", ["t1ce", "flair"])
    assert [[Path(file).name[len(case["case"]) + 1 :] for file in case["image"]] for case in cases] == [
        [f"{ending}.nii.gz" for ending in endings]
    ] * 4
    source = VolumeSource(folder, "brats", "z_score", ["t1ce", "flair"])
    with_test = divide_volumes(source, tmp_path / "three", draw=DrawnDivision(test_fraction=0.25))
    sides = [{case.get("patient", case["case"]) for case in found} for found in with_test.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == (2 if year == 2023 else 4)
    halves = DrawnDivision(validation_fraction=0.5, seed=3, test_fraction=0)
    divided = divide_volumes(source, tmp_path / "run", draw=halves)
    patients = [{case.get("patient", case["case"]) for case in divided[part]} for part in ("train", "validation")]
    assert not patients[0] & patients[1] and len(divided["train"]) == len(divided["validation"]) == 2
    assert len(patients[0]) == (1 if year == 2023 else 2)
    assert len(volumes_to_segment(folder, "brats", ["t1"])) == 4


def test_brats_names_what_is_missing(tmp_path: Path) -> None:
    folder = write_brats_layout(tmp_path, 1)
    case = folder / "BraTS20_Training_001"
    with pytest.raises(DataError, match="no modality 'pet'"):
        labelled_cases(folder, "brats", ["pet"])
    image = nib.load(case / "BraTS20_Training_001_t2.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), case / "BraTS20_Training_001_t2.nii.gz")
    with pytest.raises(DataError, match=r"_t2.nii.gz is not on the grid of .*_t1.nii.gz"):
        labelled_cases(folder, "brats")
    (case / "BraTS20_Training_001_t2.nii.gz").unlink()
    with pytest.raises(DataError, match="lacks the t2 image"):
        labelled_cases(folder, "brats")
    (case / "BraTS20_Training_001_seg.nii.gz").rename(case / "W39_1998.09.19_Segm.nii.gz")  # as case 355 of 2020 has it
    with pytest.raises(DataError, match=r"has no BraTS20_Training_001_seg.nii.gz"):
        labelled_cases(folder, "brats", ["t1"])


def test_slices_have_all_modalities_in_order(tmp_path: Path) -> None:
    folder = write_msd_layout(tmp_path / "mr", 2, MODALITIES, size=24)
    source = VolumeSource(folder, "msd", "z_score", volumes=[2, 0])
    options = SliceDrawOptions(0.5, 6, "z_score", label_values=(0, 1, 2))
    slices = ForegroundBalancedSlices(source.cases(), tmp_path / "cache", None, options, read_case_volume)
    whole = {case["case"]: np.asarray(nib.load(case["image"]).dataobj) for case in source.cases()}
    for item in (slices[k] for k in range(6)):
        assert item["image"].shape == (2, 24, 24)
        planes = [scaled(whole[item["case"]][..., number], "z_score", "") for number in (2, 0)]
        # every value of the slice is one of the modality's own slices, whichever way round the file lies
        for shown, volume in zip(item["image"].numpy(), planes, strict=True):
            assert any(np.array_equal(np.sort(shown, None), np.sort(volume[..., z], None)) for z in range(10))


def test_slices_refuse_values_and_geometry_that_do_not_fit(tmp_path: Path) -> None:
    folder = write_msd_layout(tmp_path / "ct", 1, size=16)
    case = labelled_cases(folder, "msd")[0]
    with pytest.raises(DataError, match=r"case_0001.nii.gz holds the label values 2 but the task knows only 0, 1"):
        ForegroundBalancedSlices([case], tmp_path / "a", None, SliceDrawOptions(label_values=(0, 1)), read_case_volume)
    label = nib.load(case["label"])
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj), label.affine + np.eye(4) * 9), case["label"])
    with pytest.raises(DataError, match="mm away"):
        ForegroundBalancedSlices([case], tmp_path / "b", None, SliceDrawOptions(), read_case_volume)
    with pytest.raises(DataError, match="lacks number 1"):
        read_case_volume({"image": case["image"], "volume": 1, "channels": "z_score"})
