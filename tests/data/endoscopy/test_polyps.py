from __future__ import annotations

import json
import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import monai_ssl_transfer.data.endoscopy as room
from monai_ssl_transfer.data.endoscopy.labelled_frames import divide_frames
from monai_ssl_transfer.data.endoscopy.polyps import cvc_sequence, polyp_cases
from monai_ssl_transfer.errors import DataError

SEQUENCES = Path(room.__file__).parent / "cvc_clinicdb_sequences.json"


def _photograph(path: Path, seed: int, shift: int = 0) -> None:
    """A scene that follows from the seed; with a shift of some grey values it is the same scene in another light."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scene = np.random.default_rng(seed).integers(20, 200, (8, 9, 3)).astype(np.uint8) + np.uint8(shift)
    Image.fromarray(scene).resize((72, 64), Image.Resampling.BICUBIC).save(path)


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def _cvc(folder: Path, numbers: list[int], suffix: str = ".tif") -> None:
    _touch(*(folder / kind / f"{number}{suffix}" for kind in ("Original", "Ground Truth") for number in numbers))


def test_kvasir_seg_pairs_and_groups_of_the_same_polyp(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for seed, name in enumerate(("cju1", "cju2", "cju10")):
        _photograph(tmp_path / "images" / f"{name}.jpg", seed)
    _photograph(tmp_path / "images" / "cju11.jpg", seed=1, shift=20)  # the polyp of cju2 once more
    _touch(*(tmp_path / "masks" / f"{name}.jpg" for name in ("cju1", "cju2", "cju10", "cju11")))
    _touch(tmp_path / "images" / "._cju1.jpg", tmp_path / "images" / "Thumbs.db", tmp_path / "kavsir_bboxes.json")
    with caplog.at_level(logging.INFO):
        cases = polyp_cases(tmp_path)
    assert [case["name"] for case in cases] == ["cju1", "cju2", "cju10", "cju11"]
    assert [case["group"] for case in cases] == ["cju1", "cju2", "cju10", "cju2"]
    assert cases[2] == {
        "name": "cju10",
        "image": str(tmp_path / "images" / "cju10.jpg"),
        "label": str(tmp_path / "masks" / "cju10.jpg"),
        "group": "cju10",
    }
    assert "4 photographs make 3 groups" in caplog.text
    assert [case["group"] for case in polyp_cases(tmp_path, duplicate_threshold=None)] == [c["name"] for c in cases]


def test_the_same_polyp_photographed_twice_is_never_on_two_sides(tmp_path: Path) -> None:
    for seed in range(10):
        for take in (0, 1):
            _photograph(tmp_path / "images" / f"{seed}-{take}.png", seed, shift=15 * take)
            _touch(tmp_path / "masks" / f"{seed}-{take}.png")
    cases = polyp_cases(tmp_path)
    for split_seed in range(10):
        divided = divide_frames(cases, tmp_path / f"run{split_seed}", split_seed=split_seed)
        polyps = [{case["name"].split("-")[0] for case in found} for found in divided.values()]
        assert [len(one) for one in polyps] == [6, 2, 2] and len(set.union(*polyps)) == 10


def test_several_data_sets_are_joined_and_searched_for_the_same_scene(tmp_path: Path) -> None:
    for folder, name, shift in (("one", "a", 0), ("two", "b", 20)):
        _photograph(tmp_path / folder / "images" / f"{name}.png", seed=3, shift=shift)
        _touch(tmp_path / folder / "masks" / f"{name}.png")
    _cvc(tmp_path / "cvc", [30])
    cases = polyp_cases([tmp_path / "one", tmp_path / "two", str(tmp_path / "cvc")])
    assert {case["name"]: case["group"] for case in cases} == {"30": "sequence-02", "a": "a", "b": "a"}
    with pytest.raises(DataError, match="both claim case a"):
        polyp_cases([tmp_path / "one", tmp_path / "one"])


def test_hyperkvasir_segmented_images_are_found_from_its_root(tmp_path: Path) -> None:
    inner = tmp_path / "segmented-images"
    _touch(inner / "images" / "a.jpg", inner / "masks" / "a.png", tmp_path / "unlabeled-images" / "images" / "u.jpg")
    cases = polyp_cases(tmp_path, duplicate_threshold=None)
    assert [Path(case["label"]) for case in cases] == [inner / "masks" / "a.png"]


def test_official_split_file_lists_ids_without_extension(tmp_path: Path) -> None:
    _touch(*(tmp_path / kind / f"{name}.jpg" for kind in ("images", "masks") for name in "abc"))
    listed = tmp_path / "val.txt"
    listed.write_text("c\r\na.jpg\n\n")
    assert [case["name"] for case in polyp_cases(tmp_path, listed, None)] == ["a", "c"]
    listed.write_text("c\nd\n")
    with pytest.raises(DataError, match=r"val\.txt names d, which"):
        polyp_cases(tmp_path, listed, None)
    listed.write_text("c\nc\n")
    with pytest.raises(DataError, match=r"val\.txt lists c twice"):
        polyp_cases(tmp_path, listed, None)


def test_missing_mask_and_mask_without_photograph_are_refused_by_name(tmp_path: Path) -> None:
    _touch(*(tmp_path / kind / "a.jpg" for kind in ("images", "masks")), tmp_path / "images" / "b.jpg")
    with pytest.raises(DataError, match=r"images/b\.jpg has no mask"):
        polyp_cases(tmp_path)
    _touch(tmp_path / "masks" / "b.png", tmp_path / "masks" / "c.png")
    with pytest.raises(DataError, match=r"masks/c\.png has no photograph in .*images"):
        polyp_cases(tmp_path)


def test_two_files_of_one_name_no_data_and_several_data_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        polyp_cases(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds neither images/"):
        polyp_cases(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "masks").mkdir()
    with pytest.raises(DataError, match="holds several data sets"):
        polyp_cases(tmp_path)
    with pytest.raises(DataError, match="holds no photograph"):
        polyp_cases(tmp_path / "one")
    _touch(tmp_path / "one" / "images" / "a.jpg", tmp_path / "one" / "images" / "a.png")
    with pytest.raises(DataError, match="both claim case a"):
        polyp_cases(tmp_path / "one")


def test_cvc_frames_in_numeric_order_grouped_by_sequence(tmp_path: Path) -> None:
    _cvc(tmp_path, [100, 26, 25, 3, 612])
    cases = polyp_cases(tmp_path)
    assert [case["name"] for case in cases] == ["3", "25", "26", "100", "612"]
    assert [case["group"] for case in cases] == [f"sequence-{number:02d}" for number in (1, 1, 2, 5, 29)]


@pytest.mark.parametrize("folders", [("Original", "Ground Truth"), ("original", "Ground_Truth")])
def test_cvc_png_copy(tmp_path: Path, folders: tuple[str, str]) -> None:
    _touch(*(tmp_path / "CVC-ClinicDB" / folder / "7.png" for folder in folders))
    assert polyp_cases(tmp_path)[0]["group"] == "sequence-01"


def test_of_both_cvc_copies_the_tiff_is_taken(tmp_path: Path) -> None:
    _cvc(tmp_path / "PNG", [1, 2], ".png")
    _cvc(tmp_path / "TIF", [1, 2])
    assert {Path(case["image"]).parent for case in polyp_cases(tmp_path)} == {tmp_path / "TIF" / "Original"}


@pytest.mark.parametrize("name", ["0", "613", "frame1", "-3", "²"])
def test_a_frame_of_no_cvc_sequence_is_refused(tmp_path: Path, name: str) -> None:
    _touch(*(tmp_path / kind / f"{name}.tif" for kind in ("Original", "Ground Truth")))
    with pytest.raises(DataError, match=r"is no frame of CVC-ClinicDB"):
        polyp_cases(tmp_path)


def test_cvc_sequences_are_29_without_gap_and_state_their_source() -> None:
    described = json.loads(SEQUENCES.read_text())
    ranges = described["sequences"]
    assert len(ranges) == 29 and ranges[0][0] == 1 and ranges[-1][1] == described["frames"] == 612
    assert all(last + 1 == first for (_, last), (first, _) in pairwise(ranges))
    assert all(first < last for first, last in ranges)
    assert "polyp.grand-challenge.org" in described["source"] and described["provenance"]
    # published for the same sequences as videos of CVC-ClinicVideoDB: first frame and length
    assert [104, 104 + 23 - 1] in ranges and [529, 529 + 18 - 1] in ranges


@given(st.integers(1, 612), st.integers(1, 612))
def test_two_frames_share_a_group_exactly_where_a_range_holds_both(one: int, other: int) -> None:
    ranges = json.loads(SEQUENCES.read_text())["sequences"]
    together = any(first <= min(one, other) and max(one, other) <= last for first, last in ranges)
    assert (cvc_sequence(f"{one}.tif") == cvc_sequence(f"{other}.png")) == together


def test_no_cvc_sequence_is_on_two_sides_of_a_split(tmp_path: Path) -> None:
    _cvc(tmp_path, list(range(1, 613)))
    cases = polyp_cases(tmp_path)
    for split_seed in range(5):
        divided = divide_frames(cases, tmp_path / str(split_seed), split_seed=split_seed)
        frames = {part: {int(case["name"]) for case in found} for part, found in divided.items()}
        assert sum(map(len, frames.values())) == 612 and all(frames.values())
        for first, last in json.loads(SEQUENCES.read_text())["sequences"]:
            touched = [part for part, numbers in frames.items() if numbers & set(range(first, last + 1))]
            assert len(touched) == 1, f"frames {first} to {last} are in {touched}"
