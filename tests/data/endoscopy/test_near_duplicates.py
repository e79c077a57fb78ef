"""Groups of photographs of one scene, against imagehash and brute force."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_ssl_transfer.data.endoscopy.near_duplicates import (
    DUPLICATE_THRESHOLD,
    HASH_BITS,
    difference_hash,
    hamming,
    near_duplicate_groups,
)
from monai_ssl_transfer.errors import DataError


def scene(seed: int, side: int = 200) -> np.ndarray:
    """Smooth random colours without border."""
    coarse = np.random.default_rng(seed).integers(60, 250, (9, 9, 3)).astype(np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


def brute_force(hashes: list[int], threshold: int) -> list[int]:
    """Flood fill over all pairs."""
    numbers: dict[int, int] = {}
    for start in range(len(hashes)):
        if start in numbers:
            continue
        number, todo = len(set(numbers.values())), [start]
        while todo:
            i = todo.pop()
            if i not in numbers:
                numbers[i] = number
                todo += [j for j in range(len(hashes)) if hamming(hashes[i], hashes[j]) <= threshold]
    return [numbers[i] for i in range(len(hashes))]


def test_the_hash_compares_neighbours_in_the_centre() -> None:
    ramp = np.repeat(np.linspace(60, 250, 200).astype(np.uint8)[None, :, None], 200, axis=0).repeat(3, axis=2)
    assert difference_hash(ramp) == 2**HASH_BITS - 1
    assert difference_hash(ramp[:, ::-1]) == 0
    half = ramp.copy()
    half[100:] = half[100:, ::-1]
    assert difference_hash(half) == (2**128 - 1) << 128


def test_the_hash_equals_imagehash() -> None:
    imagehash = pytest.importorskip("imagehash")
    for seed in range(5):
        frame = scene(seed)
        theirs = imagehash.dhash(Image.fromarray(frame[30:170, 30:170]), 16)
        ours = np.array([bit == "1" for bit in f"{difference_hash(frame):0256b}"])
        # another filter for shrinking and another rounding of grey
        assert (ours != theirs.hash.ravel()).sum() <= 12


def test_what_happens_to_a_photograph_keeps_its_hash(tmp_path: Path) -> None:
    """Saved again, resized, brighter, or laid into a border with text: one scene."""
    frame = scene(1, 300)
    again = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    smaller = cv2.resize(frame, (170, 170), interpolation=cv2.INTER_AREA)
    brighter = np.clip(frame * 1.1 + 8, 0, 255).astype(np.uint8)
    bordered = np.zeros((400, 520, 3), np.uint8)
    bordered[50:350, 200:500] = frame
    cv2.putText(bordered, "2012", (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 1, (255, 255, 255), 2)
    for changed in (again, smaller, brighter, bordered):
        assert hamming(difference_hash(frame), difference_hash(changed)) <= DUPLICATE_THRESHOLD / 2
    assert hamming(difference_hash(frame), difference_hash(scene(2, 300))) > 2 * DUPLICATE_THRESHOLD


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (40, 1, 3), (3, 3, 3)])
@pytest.mark.parametrize("value", [0, 255])
def test_tiny_and_black_frames_have_a_hash(shape: tuple[int, int, int], value: int) -> None:
    assert difference_hash(np.full(shape, value, np.uint8)) == 0


@given(st.integers(0, 2**HASH_BITS - 1), st.integers(0, 2**HASH_BITS - 1))
def test_hamming_counts_bits(one: int, other: int) -> None:
    assert hamming(one, other) == sum(a != b for a, b in zip(f"{one:0256b}", f"{other:0256b}", strict=True))


@settings(deadline=None)
@given(
    st.lists(
        st.integers(0, 5).flatmap(lambda n: st.sets(st.integers(0, 255), max_size=8).map(lambda s: (n, s))), max_size=40
    ),
    st.integers(0, 12),
)
def test_groups_equal_brute_force(changes: list[tuple[int, set[int]]], threshold: int) -> None:
    origins = [random.Random(n).getrandbits(HASH_BITS) for n in range(6)]
    hashes = [origins[n] ^ sum(1 << bit for bit in bits) for n, bits in changes]
    assert near_duplicate_groups(hashes, threshold) == brute_force(hashes, threshold)


def test_a_chain_is_one_group_also_across_blocks() -> None:
    """Each hash differs in one bit from the next; the chain is longer than a block of the distance table."""
    chain = [(1 << n) - 1 for n in range(HASH_BITS)]
    strangers = [random.Random(n).getrandbits(HASH_BITS) for n in range(1000)]
    mixed = [*chain[::2], *strangers, *chain[1::2]]
    groups = near_duplicate_groups(mixed, 1)
    assert set(groups[:128]) == set(groups[1128:]) == {0}
    assert groups[128:1128] == list(range(1, 1001))


def test_ten_thousand_images_take_seconds() -> None:
    rng = random.Random(0)
    start = time.process_time()
    assert len(set(near_duplicate_groups([rng.getrandbits(HASH_BITS) for _ in range(10_000)]))) == 10_000
    # the worst case of a union over pairs: all alike
    assert set(near_duplicate_groups([7] * 10_000)) == {0}
    assert time.process_time() - start < 30


def test_files_are_grouped_also_by_processes(tmp_path: Path) -> None:
    paths = []
    for n in range(80):
        paths.append(tmp_path / f"{n}.jpg")
        Image.fromarray(scene(n % 40, 64)).save(paths[-1], quality=95 - n % 7)
    expected = [n % 40 for n in range(80)]
    assert near_duplicate_groups(paths, workers=1) == expected
    assert near_duplicate_groups([str(path) for path in paths], workers=2) == expected


class Deadly(int):
    """Ends the process that takes it."""

    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        return os._exit, (1,)


def test_a_process_that_dies_is_a_sentence(tmp_path: Path) -> None:
    Image.fromarray(scene(1, 64)).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="a worker process died, probably for lack of memory"):
        near_duplicate_groups([tmp_path / "a.jpg", Deadly(3)], workers=2)


def test_a_broken_file_is_named_and_nothing_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        near_duplicate_groups([tmp_path / "broken.jpg"])
    assert near_duplicate_groups([]) == []
