"""The cache of labelled volumes and the foreground-balanced draws."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from monai_ssl_transfer.data.ct.labelled_volumes import (
    ForegroundBalancedSlices,
    SliceDrawOptions,
    build_volume_cache,
    case_key,
    series_numbers,
)
from monai_ssl_transfer.data.store import SliceStore
from monai_ssl_transfer.errors import DataError

# Slices that show liver (1) and tumour (2): tumours are rare, and case c has no foreground at all.
SHOWN = {"a": ({2, 3, 4, 5, 6}, {4}), "b": ({1, 2}, {2}), "c": (set(), set())}
COUNTS = {"a": 10, "b": 6, "c": 8}


def write_case(folder: Path, name: str, seed: int = 0) -> dict[str, str]:
    """A stand-in volume whose slice z has the value 10 * z - 1000; RAS+ affine, 2.5 mm slices, 0.7 x 0.8 mm pixels."""
    shape = (24, 20, COUNTS[name])
    image = np.random.default_rng(seed).integers(0, 5, shape) + 10 * np.arange(COUNTS[name]) - 1000
    label = np.zeros(shape, np.uint8)
    for value, slices in enumerate(SHOWN[name], start=1):
        for z in slices:
            label[4 * value : 4 * value + 5, 3:8, z] = value
    case = {"image": str(folder / f"volume-{name}.nii.gz"), "label": str(folder / f"segmentation-{name}.nii.gz")}
    affine = np.diag([0.7, 0.8, 2.5, 1])
    nib.save(nib.Nifti1Image(image.astype(np.int16), affine), case["image"])
    nib.save(nib.Nifti1Image(label, affine), case["label"])
    return {**case, "case": name}


@pytest.fixture
def cases(tmp_path: Path) -> list[dict[str, str]]:
    return [write_case(tmp_path, name, seed) for seed, name in enumerate("abc")]


def test_volumes_come_back_in_canonical_order(cases: list[dict[str, str]], tmp_path: Path) -> None:
    store = build_volume_cache(cases, tmp_path / "cache")
    assert store.series_count == 3 and len(store) == 24 and store.verify() == []
    for number, case in enumerate(cases):
        image = np.asarray(nib.load(case["image"]).dataobj)
        label = np.asarray(nib.load(case["label"]).dataobj)
        entry = store.series(number)
        assert entry.series_key == case_key(case) and entry.slice_spacing == 2.5
        for z, i in enumerate(store.series_range(number)):
            # RAS+ to rows towards posterior and columns towards left: transposed, then turned round
            np.testing.assert_array_equal(store.read(i), image[::-1, ::-1, z].T)
            np.testing.assert_array_equal(store.read_mask(i), label[::-1, ::-1, z].T)
        i = store.series_range(number).start
        np.testing.assert_allclose([store.index[i]["row_spacing"], store.index[i]["column_spacing"]], [0.8, 0.7])
        row, column, z = 3, 5, 2
        world = np.array(entry.affine).reshape(4, 4) @ [row, column, z, 1]
        np.testing.assert_allclose(world[:3], [0.7 * (23 - column), 0.8 * (19 - row), 2.5 * z], atol=1e-4)


def test_unchanged_cases_are_reused_and_changed_ones_ingested_again(cases: list[dict], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = build_volume_cache(cases[:2], cache)
    again = build_volume_cache(cases[:2], cache)
    assert again.content_hash == first.content_hash
    more = build_volume_cache(cases, cache)
    assert more.series_count == 3
    key = case_key(cases[1])
    write_case(tmp_path, "b", seed=77)
    os.utime(cases[1]["image"], ns=(1, 1))
    changed = build_volume_cache(cases, cache)
    assert changed.series_count == 4 and case_key(cases[1]) != key
    numbers = series_numbers(changed)
    old, new = (changed.read(changed.series_range(numbers[k]).start) for k in (key, case_key(cases[1])))
    assert (old != new).any()
    data = ForegroundBalancedSlices(cases, cache)
    assert len(data) == 24  # the old slices of b are not drawn


def test_label_map(cases: list[dict], tmp_path: Path) -> None:
    plain = build_volume_cache(cases[:1], tmp_path / "cache")
    merged = build_volume_cache(cases[:1], tmp_path / "cache", label_map={2: 1})
    assert merged.series_count == 2
    np.testing.assert_array_equal(merged.read_mask(14), plain.read_mask(4) > 0)
    assert plain.read_mask(4).max() == 2


def _build(cases: list[dict], cache: Path) -> int:
    return build_volume_cache(cases, cache).series_count


def test_ranks_share_one_cache(cases: list[dict], tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.starmap(_build, [(cases, tmp_path / "cache")] * 3) == [3, 3, 3]


def test_wrong_cases_name_the_file(cases: list[dict], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no case"):
        build_volume_cache([], tmp_path / "cache")
    with pytest.raises(DataError, match="no 'label'"):
        build_volume_cache([{"image": cases[0]["image"]}], tmp_path / "cache")
    with pytest.raises(DataError, match=r"missing.nii.gz, the label of case a"):
        build_volume_cache([{**cases[0], "label": tmp_path / "missing.nii.gz"}], tmp_path / "cache")
    with pytest.raises(DataError, match=r"segmentation-b.nii.gz"):
        build_volume_cache([cases[0], {**cases[2], "label": cases[1]["label"]}], tmp_path / "cache")
    assert SliceStore(tmp_path / "cache").series_count == 1
    for wrong in ({"foreground_fraction": 1.5}, {"channels": "rgb"}, {"slices_per_epoch": 0}):
        with pytest.raises(DataError, match="choose"):
            SliceDrawOptions(**wrong)


def test_items(cases: list[dict], tmp_path: Path) -> None:
    data = ForegroundBalancedSlices(cases, tmp_path / "cache")
    assert data.data == cases and len(data) == 24
    for k in range(24):
        item = data[k]
        assert item["image"].dtype == torch.int16 and item["image"].shape == (1, 20, 24)
        assert item["label"].dtype == torch.uint8 and item["label"].shape == (1, 20, 24)
        assert item["spacing"] == pytest.approx((0.8, 0.7))
        np.testing.assert_array_equal(item["image"][0], data.store.read(item["index"]))
        number = "abc".index(item["case"])
        assert item["index"] in data.store.series_range(number)
    with pytest.raises(IndexError):
        data[24]


def test_neighbours(cases: list[dict], tmp_path: Path) -> None:
    data = ForegroundBalancedSlices(cases, tmp_path / "cache", options=SliceDrawOptions(channels="neighbours"))
    item = data[0]
    levels = item["image"].amin(dim=(1, 2)).tolist()
    first = {"a": 0, "b": 10, "c": 16}[item["case"]]
    z = item["index"] - first
    assert levels == [10 * n - 1000 for n in (max(z - 1, 0), z, min(z + 1, COUNTS[item["case"]] - 1))]


def _drawn(data: ForegroundBalancedSlices, epochs: int) -> list[tuple[str, int]]:
    found = []
    for epoch in range(epochs):
        for k in range(len(data)):
            i = data.slice_number(k, epoch)
            number = int(data.store.index["series"][i])
            found.append(("abc"[number], i - data.store.series_range(number).start))
    return found


def test_foreground_is_balanced(cases: list[dict], tmp_path: Path) -> None:
    """Against the probabilities of the description, within five standard errors."""

    def share(fraction: float, classes: tuple[int, ...] | None, event: Any) -> tuple[float, float]:
        options = SliceDrawOptions(foreground_fraction=fraction, classes=classes, slices_per_epoch=1000)
        drawn = _drawn(ForegroundBalancedSlices(cases, tmp_path / "cache", options=options), 4)
        p = float(np.mean([event(*one) for one in drawn]))
        return p, 5 * np.sqrt(p * (1 - p) / len(drawn)) + 1e-9

    def tumour(case: str, z: int) -> bool:
        return z in SHOWN[case][1]

    def liver(case: str, z: int) -> bool:
        return z in SHOWN[case][0]

    any_tumour = (1 / 10 + 1 / 6) / 3
    liver_tumour = (1 / 5 + 1 / 2) / 2
    for fraction, classes, event, expected in (
        (0.0, None, tumour, any_tumour),
        (1.0, None, liver, 1.0),
        (1.0, None, tumour, 0.5 + 0.5 * liver_tumour),
        (1.0, (2,), tumour, 1.0),
        (0.6, None, tumour, 0.6 * (0.5 + 0.5 * liver_tumour) + 0.4 * any_tumour),
        (0.0, None, lambda case, z: case == "b", 1 / 3),
    ):
        p, error = share(fraction, classes, event)
        assert abs(p - expected) <= error, (fraction, classes, expected)


def test_draws_are_arithmetic(cases: list[dict], tmp_path: Path) -> None:
    def draws(seed: int) -> list[tuple[str, int]]:
        return _drawn(ForegroundBalancedSlices(cases, tmp_path / "cache", options=SliceDrawOptions(seed=seed)), 2)

    assert draws(1) == draws(1) and draws(1) != draws(2)
    assert draws(1)[:24] != draws(1)[24:]


def test_workers_see_a_new_epoch(cases: list[dict], tmp_path: Path) -> None:
    data = ForegroundBalancedSlices(cases, tmp_path / "cache")
    loader = DataLoader(data, batch_size=6, num_workers=2, persistent_workers=True)
    for epoch in (0, 3, 1):
        data.set_epoch(epoch)
        seen = [i for batch in loader for i in batch["index"].tolist()]
        assert seen == [data.slice_number(k, epoch) for k in range(24)]


def test_random_transform_is_reseeded_per_item(cases: list[dict], tmp_path: Path) -> None:
    from monai.transforms import RandGaussianNoised

    transform = RandGaussianNoised(keys="image", prob=1.0, std=3.0)
    data = ForegroundBalancedSlices(cases, tmp_path / "cache", transform)
    first = [data[k]["image"] for k in (0, 1)]
    torch.testing.assert_close(data[0]["image"], first[0], rtol=0, atol=0)
    data.set_epoch(1)
    assert not torch.equal(data[0]["image"], first[0])


def test_classes_beyond_the_record_are_found(tmp_path: Path) -> None:
    case = write_case(tmp_path, "a")
    label = nib.load(case["label"])
    voxels = np.asarray(label.dataobj).copy()
    voxels[0, 0, 7] = 200
    nib.save(nib.Nifti1Image(voxels, label.affine), case["label"])
    options = SliceDrawOptions(foreground_fraction=1.0, classes=(200,))
    data = ForegroundBalancedSlices([case], tmp_path / "cache", options=options)
    assert {data.slice_number(k, 0) for k in range(10)} == {7}
