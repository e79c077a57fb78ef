from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.data.endoscopy.c3vd import SSL4GIE_TEST_VIDEOS, SSL4GIE_VALIDATION_VIDEOS, depth_cases
from monai_ssl_transfer.data.endoscopy.labelled_frames import divide_frames
from monai_ssl_transfer.errors import DataError

FIRST_RELEASE = {"trans_t2_b": "t2v2", "cecum_t4_b": "c4v3", "trans_t4_a": "t4v1", "cecum_t2_c": "c2v3"}


def _video(folder: Path, numbers: range | list[int]) -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        for name in (f"{number}_color.png", f"{number:04d}_depth.tiff", f"{number:04d}_normals.tiff"):
            (folder / name).write_bytes(b"")
    (folder / "pose.txt").write_text("")


def test_unpadded_colour_is_paired_with_padded_depth_by_number(tmp_path: Path) -> None:
    _video(tmp_path / "cecum_t1_a", range(12))
    _video(tmp_path / "trans_t2_b", [0, 101])
    cases = depth_cases(tmp_path)
    assert [case["name"] for case in cases[:12]] == [f"cecum_t1_a-{number:04d}" for number in range(12)]
    for number, case in enumerate(cases[:12]):  # names sorted as text would pair 2 with 10
        assert Path(case["image"]).name == f"{number}_color.png"
        assert Path(case["depth"]).name == f"{number:04d}_depth.tiff"
    assert [case["group"] for case in cases] == ["cecum_t1_a"] * 12 + ["trans_t2_b"] * 2


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 9999), min_size=1, max_size=30), st.booleans(), st.booleans())
def test_pairs_are_of_one_number_in_any_padding(numbers: set[int], pad_colour: bool, pad_depth: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            for padded, kind in ((pad_colour, "color.png"), (pad_depth, "depth.tiff")):
                (Path(folder) / (f"{number:04d}_{kind}" if padded else f"{number}_{kind}")).write_bytes(b"")
        cases = depth_cases(folder)
    pairs = [(int(Path(c["image"]).name.split("_")[0]), int(Path(c["depth"]).name.split("_")[0])) for c in cases]
    assert pairs == [(number, number) for number in sorted(numbers)]


def test_first_release_and_flat_layout_have_the_same_groups_and_names(tmp_path: Path) -> None:
    for video, inner in FIRST_RELEASE.items():
        _video(tmp_path / "old" / f"{video}_under_review" / inner, range(3))
        _video(tmp_path / "new" / "registered" / video, range(3))
    for key in ("group", "name"):
        assert [case[key] for case in depth_cases(tmp_path / "old")] == [c[key] for c in depth_cases(tmp_path / "new")]


def test_links_to_videos_are_followed_and_hidden_files_are_not_frames(tmp_path: Path) -> None:
    _video(tmp_path / "store" / "cecum_t1_a", range(2))
    (tmp_path / "store" / "cecum_t1_a" / "._0_color.png").write_bytes(b"")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cecum_t1_a").symlink_to(tmp_path / "store" / "cecum_t1_a", target_is_directory=True)
    assert [case["name"] for case in depth_cases(tmp_path / "set")] == ["cecum_t1_a-0000", "cecum_t1_a-0001"]


def test_two_folders_of_one_video_are_one_group_with_names_of_their_own(tmp_path: Path) -> None:
    for inner in ("t2v1", "t2v2"):
        _video(tmp_path / "trans_t2_b_under_review" / inner, range(2))
    cases = depth_cases(tmp_path)
    assert {case["group"] for case in cases} == {"trans_t2_b"} and len({case["name"] for case in cases}) == 4


def test_a_video_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    for copy in ("a", "b"):
        _video(tmp_path / copy / "cecum_t1_a", range(2))
    with pytest.raises(DataError, match="both claim case cecum_t1_a-cecum_t1_a-0000"):
        depth_cases(tmp_path)


def test_a_missing_partner_is_named(tmp_path: Path) -> None:
    video = tmp_path / "cecum_t1_a"
    _video(video, range(3))
    (video / "0002_depth.tiff").unlink()
    with pytest.raises(DataError, match=r"2_color\.png has no 0002_depth\.tiff"):
        depth_cases(tmp_path)
    (video / "2_color.png").unlink()
    (video / "1_color.png").unlink()
    with pytest.raises(DataError, match=r"0001_depth\.tiff has no 1_color\.png"):
        depth_cases(tmp_path)


def test_two_files_of_one_number_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no N_color"):
        depth_cases(tmp_path)
    _video(tmp_path / "v", range(3))
    (tmp_path / "v" / "0002_color.png").write_bytes(b"")
    with pytest.raises(DataError, match="both claim frame 2"):
        depth_cases(tmp_path)


def test_published_videos_are_held_out_and_no_video_is_divided(tmp_path: Path) -> None:
    for video in (*FIRST_RELEASE, "cecum_t1_a", "sigmoid_t1_a", "desc_t4_a"):
        _video(tmp_path / video, range(4))
    divided = divide_frames(
        depth_cases(tmp_path),
        tmp_path / "run",
        test_groups=SSL4GIE_TEST_VIDEOS,
        validation_groups=SSL4GIE_VALIDATION_VIDEOS,
    )
    groups = {part: {case["group"] for case in cases} for part, cases in divided.items()}
    assert groups == {
        "train": {"cecum_t1_a", "sigmoid_t1_a", "desc_t4_a"},
        "validation": {"trans_t4_a", "cecum_t2_c"},
        "test": {"trans_t2_b", "cecum_t4_b"},
    }
    assert sum(len(cases) for cases in divided.values()) == 7 * 4
