"""Real frames and masks of Kvasir-SEG: masks are JPEG, values 0..8 and 247..255, some stored as RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_ssl_transfer.data.endoscopy.borders import field_of_view
from monai_ssl_transfer.data.endoscopy.frames import frame_size, read_frame, read_mask, write_mask
from monai_ssl_transfer.data.endoscopy.near_duplicates import near_duplicate_groups

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def kvasir(real_data: Path) -> Path:
    """Folder of the pairs at original size."""
    folder = real_data / "endoscopy" / "Kvasir-SEG"
    if not folder.is_dir():
        pytest.skip(f"no frames of Kvasir-SEG at {folder}")
    return folder


def test_masks_are_binary_and_fit_their_frames(kvasir: Path, tmp_path: Path) -> None:
    modes, noise = set(), 0
    masks = sorted((kvasir / "masks").iterdir())
    for path in masks:
        photograph = kvasir / "images" / path.name
        mask = read_mask(path)
        with Image.open(path) as image:
            modes.add(image.mode)
            values = np.asarray(image.convert("L"))
        assert mask.shape == frame_size(photograph) == values.shape
        # the coding leaves nothing in between (one pixel of 37.8 million has 246): half range has room to spare
        assert not ((values > 8) & (values < 246)).any()
        assert np.array_equal(mask, values > 127)
        assert 0 < mask.mean() < 1
        noise += int((values.astype(bool) != mask).sum())
    assert len(masks) == 104
    assert "RGB" in modes
    # what a cast to bool would call polyp
    assert noise > 10_000
    write_mask(tmp_path / "mask.png", mask, photograph)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")), mask * np.uint8(255))


def test_frames_are_read_and_their_view_is_most_of_them(kvasir: Path) -> None:
    for path in sorted((kvasir / "images").iterdir())[::8]:
        frame = read_frame(path)
        assert frame.shape == (*frame_size(path), 3)
        top, bottom, left, right = field_of_view(frame)
        assert (bottom - top) * (right - left) > 0.85 * frame.shape[0] * frame.shape[1]


def test_photographs_of_one_scene_are_found_among_strangers(kvasir: Path, real_data: Path) -> None:
    """With and without the scope guide, at two sizes; and a picture that was saved twice."""
    small = real_data / "endoscopy" / "Kvasir-SEG-256" / "images"
    if not small.is_dir():
        pytest.skip(f"no frames of Kvasir-SEG at {small}")
    frames = {path.stem: path for folder in (kvasir / "images", small) for path in sorted(folder.iterdir())[:60]}
    scenes = [
        ("cju13hp5rnbjx0835bf0jowgx", "cjyzu9th0qt4r0a46pyl4zik0"),
        ("cju33za6l2qy70988jhrlp2ev", "cjyzjzssvd8pq0838f4nolj5l"),
        ("cjyzl833ndne80838pzuq6ila", "cju5jx7jzf7c90871c2i9aiov"),
        ("cju76lsehyia10987u54vn8rb", "cju772304yw5t0818vbw8kkjf"),
    ]
    for one, other in scenes:
        frames |= {
            name: next(f for f in (kvasir / "images" / f"{name}.jpg", small / f"{name}.jpg") if f.is_file())
            for name in (one, other)
        }
    groups = dict(zip(frames, near_duplicate_groups(list(frames.values())), strict=True))
    for one, other in scenes:
        assert groups[one] == groups[other]
    assert len(set(groups.values())) == len(frames) - len(scenes)
