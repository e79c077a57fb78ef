"""Frames from file to network input and back: sizes, alignment, colours, and randomness in workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, decollate_batch
from monai.transforms import Compose, RandAffined
from monai.utils import set_determinism
from PIL import Image
from torchvision.transforms import functional as reference

from monai_ssl_transfer.data.endoscopy.frame_transforms import (
    Letterboxd,
    LoadFramed,
    LoadMaskd,
    NormaliseFramed,
    Place,
    RandColourJitterd,
    letterbox,
    letterbox_place,
    undo_letterbox,
)
from monai_ssl_transfer.errors import DataError

SIDES = st.integers(1, 300)


@pytest.fixture
def case(tmp_path: Path) -> dict[str, str]:
    """A photograph of 40 x 60 pixels with a bright square, and the mask of the square."""
    frame = np.full((40, 60, 3), (150, 70, 50), np.uint8)
    frame[10:20, 30:40] = (240, 200, 190)
    Image.fromarray(frame).save(tmp_path / "one.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:40] = 255
    Image.fromarray(mask).save(tmp_path / "one_mask.png")
    return {"name": "one", "image": str(tmp_path / "one.png"), "label": str(tmp_path / "one_mask.png")}


@settings(max_examples=200, deadline=None)
@given(rows=SIDES, columns=SIDES, size=st.integers(8, 128))
def test_letterbox_and_back_restores_the_size(rows: int, columns: int, size: int) -> None:
    boxed, place = letterbox(torch.full((3, rows, columns), 200, dtype=torch.uint8), size)
    assert boxed.shape == (3, size, size)
    assert boxed.dtype == torch.uint8
    inner = boxed[:, place.top : place.top + place.height, place.left : place.left + place.width]
    assert inner.numel() == 3 * place.height * place.width
    assert (inner == 200).all()
    assert boxed.count_nonzero() == inner.numel()
    native = undo_letterbox(torch.randn(2, size, size), place)
    assert native.shape == (2, rows, columns)


@settings(max_examples=200, deadline=None)
@given(rows=SIDES, columns=SIDES, size=st.integers(8, 128))
def test_the_place_keeps_the_aspect_and_is_centred(rows: int, columns: int, size: int) -> None:
    place = letterbox_place(rows, columns, size)
    assert max(place.height, place.width) == size
    scale = size / max(rows, columns)
    assert abs(place.height - rows * scale) <= 0.5 or place.height == 1
    assert abs(place.width - columns * scale) <= 0.5 or place.width == 1
    assert 0 <= size - place.height - 2 * place.top <= 1
    assert 0 <= size - place.width - 2 * place.left <= 1


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(16, 300), columns=st.integers(16, 300), size=st.integers(32, 128))
def test_content_comes_back_to_its_pixels(rows: int, columns: int, size: int) -> None:
    """A ramp in each direction is what bilinear interpolation keeps: half a pixel of shift would show."""
    assume(max(rows, columns) < 8 * min(rows, columns))
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    ramps = torch.stack([y / rows, x / columns])
    boxed, place = letterbox(ramps, size)
    back = undo_letterbox(boxed, place)
    # bilinear interpolation repeats the border for half a pixel, the antialias filter weighs up to a pixel there
    coarse = max(1.0, max(rows, columns) / size)
    inside = (slice(None), *(slice(int(2 * coarse) + 1, n - int(2 * coarse) - 1) for n in (rows, columns)))
    pixels = (back - ramps)[inside].abs() * torch.tensor([rows, columns]).view(2, 1, 1)
    assert pixels.numel() == 0 or pixels.max() < 0.12 * coarse


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(32, 200), columns=st.integers(32, 200), size=st.integers(48, 160), data=st.data())
def test_a_mask_lies_on_its_frame_in_the_square(rows: int, columns: int, size: int, data: st.DataObject) -> None:
    assume(max(rows, columns) < 4 * min(rows, columns))
    # away from the border, where the antialias filter has less to weigh
    top, left = data.draw(st.integers(10, rows - 18)), data.draw(st.integers(10, columns - 18))
    mask = torch.zeros(1, rows, columns, dtype=torch.uint8)
    mask[:, top : top + 8, left : left + 8] = 1
    boxed_mask, _ = letterbox(mask, size, "nearest")
    boxed, _ = letterbox(mask.double(), size)
    assert boxed_mask.dtype == torch.uint8
    assert set(boxed_mask.unique().tolist()) == {0, 1}
    # each edge of the square moves by at most half a pixel
    difference = _centre(boxed_mask[0].double()) - _centre(boxed[0])
    assert difference.abs().max() <= 0.501


def _centre(weights: torch.Tensor) -> torch.Tensor:
    rows, columns = weights.sum(1), weights.sum(0)
    return torch.stack([(n * torch.arange(len(n))).sum() / n.sum() for n in (rows, columns)])


def test_letterbox_shrinks_with_antialias() -> None:
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(3, 64, 32)
    boxed, _ = letterbox(stripes, 16)
    assert ((boxed[:, :, 1:-1].float() - 127.5).abs() < 3).all()


def test_letterbox_and_back_of_a_batch_and_of_a_place_from_a_batch() -> None:
    frames = torch.randint(0, 256, (2, 3, 30, 50)).float()
    boxed, place = letterbox(frames, 20)
    assert boxed.shape == (2, 3, 20, 20)
    assert isinstance(place, Place)
    back = undo_letterbox(boxed, torch.tensor(place))
    assert back.shape == frames.shape
    assert torch.equal(back[1], undo_letterbox(boxed[1], place))


def test_wrong_squares_and_modes_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(10, 10\) pixels are no letterbox of 20 x 20"):
        undo_letterbox(torch.zeros(1, 10, 10), letterbox_place(30, 50, 20))
    with pytest.raises(DataError, match="no mode 'cubic'"):
        letterbox(torch.zeros(3, 30, 50), 20, "cubic")


def test_a_case_is_loaded(case: dict[str, str]) -> None:
    loaded = Compose([LoadFramed("image"), LoadMaskd("label")])(case)
    assert (loaded["image"].shape, loaded["image"].dtype) == ((3, 40, 60), torch.uint8)
    assert (loaded["label"].shape, loaded["label"].dtype) == ((1, 40, 60), torch.uint8)
    assert (loaded["image_path"], loaded["label_path"]) == (case["image"], case["label"])
    assert loaded["image"][:, 15, 35].tolist() == [240, 200, 190]
    assert torch.equal(loaded["label"][0] == 1, loaded["image"][0] == 240)
    assert isinstance(case["image"], str)


@pytest.mark.parametrize("first", ["image", "label"])
def test_no_mask_means_nothing_to_see(case: dict[str, str], first: str) -> None:
    steps = [LoadFramed("image"), LoadMaskd("label")]
    loaded = Compose(steps if first == "image" else steps[::-1])({**case, "label": ""})
    assert loaded["label"].shape == (1, 40, 60)
    assert loaded["label"].sum() == 0
    assert loaded["label_path"] == ""


@pytest.mark.parametrize("first", ["image", "label"])
def test_a_mask_of_another_size_is_refused_and_both_are_named(case: dict[str, str], first: str) -> None:
    Image.new("L", (61, 40)).save(case["label"])
    steps = [LoadFramed("image"), LoadMaskd("label")]
    with pytest.raises(RuntimeError) as raised:
        Compose(steps if first == "image" else steps[::-1])(case)
    refusal = raised.value.__cause__
    assert isinstance(refusal, DataError)
    assert f"{case['label']} has 40 x 61 pixels and its photograph {case['image']} 40 x 60" in str(refusal)


def test_a_mask_drawn_on_the_unturned_photograph_is_refused(case: dict[str, str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(case["image"]).save(case["image"], exif=exif)
    with pytest.raises(DataError, match=r"one_mask\.png .*one\.png 60 x 40, turned by 90 degrees"):
        LoadMaskd("label")(LoadFramed("image")(case))


def test_a_truncated_photograph_is_refused_by_name_in_training(case: dict[str, str]) -> None:
    """Its end was lost and filled with zeros, as unfinished downloads are: Pillow alone gives half a photograph."""
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    path = Path(case["image"]).with_suffix(".jpg")
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2].ljust(len(data), b"\0"))
    with Image.open(path) as image:
        image.load()  # without an error
    with pytest.raises(RuntimeError) as raised:
        next(iter(DataLoader(Dataset([{"image": str(path)}], Compose([LoadFramed("image")])), num_workers=0)))
    assert isinstance(raised.value.__cause__, DataError) and "one.jpg is a truncated" in str(raised.value.__cause__)


def test_letterboxed_cases(case: dict[str, str]) -> None:
    pipeline = Compose(
        [LoadFramed("image"), LoadMaskd("label"), Letterboxd(["image", "label"], 30, ["bilinear", "nearest"])]
    )
    boxed = pipeline(case)
    assert boxed["image"].shape == (3, 30, 30)
    assert boxed["label"].shape == (1, 30, 30)
    assert boxed["letterbox"].tolist() == [40, 60, 5, 0, 20, 30, 30]
    assert boxed["image"][:, :5].sum() == boxed["image"][:, 25:].sum() == 0
    assert boxed["label"].sum() == 25
    assert undo_letterbox(boxed["image"].float(), boxed["letterbox"]).shape == (3, 40, 60)


def test_pictures_of_different_size_are_not_letterboxed_together() -> None:
    case = {"name": "one", "image": torch.zeros(3, 40, 60), "label": torch.zeros(1, 40, 50)}
    with pytest.raises(DataError, match="one has pictures of 40 x 50 and 40 x 60 pixels"):
        Letterboxd(["image", "label"], 30)(case)


def test_cases_pass_through_cache_loader_and_decollation(case: dict[str, str]) -> None:
    pipeline = [
        LoadFramed("image"),
        LoadMaskd("label"),
        Letterboxd(["image", "label"], 32, ["bilinear", "nearest"]),
        RandColourJitterd("image", prob=1.0),
        RandAffined(["image", "label"], prob=1.0, rotate_range=3.0, mode=["bilinear", "nearest"], padding_mode="zeros"),
        NormaliseFramed("image"),
    ]
    data = CacheDataset([case, case], Compose(pipeline), progress=False)
    batch = next(iter(DataLoader(data, batch_size=2, num_workers=0)))
    assert (batch["image"].shape, batch["image"].dtype) == ((2, 3, 32, 32), torch.float32)
    assert set(batch["label"].unique().tolist()) == {0, 1}
    one = decollate_batch(batch)[1]
    assert one["image_path"] == case["image"]
    assert undo_letterbox(one["image"], one["letterbox"]).shape == (3, 40, 60)


def test_normalisation_equals_torchvision() -> None:
    frame = torch.randint(0, 256, (3, 8, 9), dtype=torch.uint8)
    before = frame.clone()
    expected = reference.normalize(frame / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for given_frame in (frame, frame.float(), frame.half()):
        normalised = NormaliseFramed("image")({"image": given_frame})["image"]
        assert normalised.dtype == torch.float32
        torch.testing.assert_close(normalised, expected)
        assert torch.equal(given_frame, before.to(given_frame.dtype))  # the cache keeps what it holds


def jittered(seed: int, frame: torch.Tensor, **options: float) -> torch.Tensor:
    jitter = RandColourJitterd("image", prob=1.0, **options)
    jitter.set_random_state(seed)
    return jitter({"image": frame})["image"]


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    ("option", "apply"),
    [
        ("brightness", reference.adjust_brightness),
        ("contrast", reference.adjust_contrast),
        ("saturation", reference.adjust_saturation),
        ("hue", reference.adjust_hue),
    ],
)
def test_each_colour_change_is_torchvisions(option: str, apply, kind: torch.dtype) -> None:  # type: ignore[no-untyped-def]
    frame = torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    off = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    result = jittered(5, frame.to(kind), **{**off, option: 0.3})
    assert result.dtype == kind
    draws = np.random.RandomState(5)
    draws.rand()
    drawn = dict(zip(("brightness", "contrast", "saturation", "hue"), draws.uniform(size=4), strict=True))
    amount = (2 * drawn[option] - 1) * 0.3 + (0 if option == "hue" else 1)
    expected = apply(frame / 255, amount) * 255
    assert (result.float() - expected).abs().max() <= (0.501 if kind == torch.uint8 else 0.01)
    assert (result.float() - frame.float()).abs().mean() > 1


def test_colour_jitter_changes_all_keys_alike_and_the_asked_share() -> None:
    frame = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    jitter = RandColourJitterd(["image", "other"], prob=0.5)
    jitter.set_random_state(0)
    changed = 0
    for _ in range(200):
        case = jitter({"image": frame, "other": frame})
        assert torch.equal(case["image"], case["other"])
        changed += not torch.equal(case["image"], frame)
    assert 70 <= changed <= 130


def test_colour_jitter_takes_metatensors() -> None:
    frame = torch.randint(0, 256, (3, 8, 8)).float()
    assert torch.equal(torch.as_tensor(jittered(1, MetaTensor(frame))), jittered(1, frame))


def epochs(workers: int, seed: int, count: int, case: dict[str, str]) -> list[torch.Tensor]:
    """Augmented pictures of ``count`` epochs over eight copies of one case."""
    set_determinism(seed)
    try:
        pipeline = Compose([LoadFramed("image"), RandColourJitterd("image", prob=1.0)])
        loader = DataLoader(CacheDataset([case] * 8, pipeline, progress=False), batch_size=1, num_workers=workers)
        return [torch.cat([batch["image"] for batch in loader]) for _ in range(count)]
    finally:
        set_determinism(None)


def test_augmentation_is_seeded_per_worker(case: dict[str, str]) -> None:
    """Workers are copies of one process: without a seed of their own all would draw the same."""
    first, second = epochs(2, 0, 2, case)
    again = epochs(2, 0, 2, case)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])
    # eight copies of one photograph: no two of them, by whichever worker, and no two epochs look the same
    assert len(torch.cat([first, second]).flatten(1).unique(dim=0)) == 16
    assert not torch.equal(first, epochs(2, 1, 1, case)[0])
