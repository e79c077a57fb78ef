"""Pairing, groups and boxes on real photographs of polyps."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from monai_ssl_transfer.data.endoscopy.boxes import polyp_box_cases
from monai_ssl_transfer.data.endoscopy.frames import frame_size
from monai_ssl_transfer.data.endoscopy.labelled_frames import divide_frames
from monai_ssl_transfer.data.endoscopy.polyps import polyp_cases

pytestmark = pytest.mark.real

# Looked at as pictures: each pair shows the same polyp, saved twice or a moment apart, the last three in both folders.
SAME_POLYP = {
    ("cju1g20bdwq6u0835e16xugcd", "cjyzurzvohqnr0794es1itzek"),
    ("cju2i6acqvo6l0799u20fift8", "cjz14qsk2wci60794un9ozwmw"),
    ("cju5y4hgqmk0i08180rjhbwvp", "cjyzlw7f9faqr070129au64sq"),
    ("cju7ehljc2or70871261br8ai", "cjyzufihqquiw0a46jatrbwln"),
    ("cju7fnfv02tt90801djnix9m8", "cjyzuio1qgh040763k56deohv"),
    ("cju8amfdtqi4x09871tygrgqe", "cju886ryxnsl50801r93jai7q"),
    ("cju45jpvfn6c809873pv1i34s", "cjyzkmjy8evns070165gf9dmq"),
    ("cju76lsehyia10987u54vn8rb", "cju772304yw5t0818vbw8kkjf"),
    ("cju5jx7jzf7c90871c2i9aiov", "cjyzl833ndne80838pzuq6ila"),
    ("cju33za6l2qy70988jhrlp2ev", "cjyzjzssvd8pq0838f4nolj5l"),
    ("cju13hp5rnbjx0835bf0jowgx", "cjyzu9th0qt4r0a46pyl4zik0"),
}


def test_the_same_polyp_is_one_group_and_never_on_two_sides(real_data: Path, tmp_path: Path) -> None:
    folders = [real_data / "endoscopy" / name for name in ("Kvasir-SEG", "Kvasir-SEG-256")]
    cases = polyp_cases(folders)
    assert len(cases) == 104 + 702 and all(Path(case["label"]).stem == case["name"] for case in cases)
    groups = defaultdict(set)
    for case in cases:
        groups[case["group"]].add(case["name"])
    assert {frozenset(names) for names in groups.values() if len(names) > 1} == set(map(frozenset, SAME_POLYP))
    divided = divide_frames(cases, tmp_path)
    side = {case["name"]: part for part, found in divided.items() for case in found}
    assert len(side) == 806 and all(side[one] == side[other] for one, other in SAME_POLYP)


def test_boxes_of_jpeg_masks_have_no_box_for_a_speck(real_data: Path) -> None:
    cases = polyp_box_cases(real_data / "endoscopy" / "Kvasir-SEG", duplicate_threshold=None)
    assert sum(len(case["boxes"]) for case in cases) == 111 and all(case["boxes"] for case in cases)
    for case in cases:
        rows, columns = frame_size(Path(case["image"]))
        for x0, y0, x1, y1 in case["boxes"]:
            assert 0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows and (x1 - x0) * (y1 - y0) > 1e-3 * rows * columns
    # kavsir_bboxes.json has (38, 5, 430, 338) here: near edges one pixel further out, far edges the same
    found = {case["name"]: case["boxes"] for case in cases}
    assert found["cju0qkwl35piu0993l0dewei2"] == [[39.0, 6.0, 430.0, 338.0]]
