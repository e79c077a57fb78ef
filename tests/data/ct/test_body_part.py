"""Body regions from headers in two languages, and from a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_ssl_transfer.data.ct.body_part import BodyPart, body_part_from_tags, body_part_from_text, read_labels_csv
from monai_ssl_transfer.errors import DataError


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("HEAD", BodyPart.HEAD_NECK),
        ("Schädel nativ", BodyPart.HEAD_NECK),
        ("NECK^ROUTINE", BodyPart.HEAD_NECK),
        ("CHEST", BodyPart.THORAX),
        ("Thorax_KM", BodyPart.THORAX),
        ("LUNGE", BodyPart.THORAX),
        ("ABDOMEN", BodyPart.ABDOMEN),
        ("Darm", BodyPart.ABDOMEN),  # holds "arm"
        ("Oberbauch", BodyPart.ABDOMEN),
        ("ARM", BodyPart.EXTREMITIES),
        ("Kniegelenk links", BodyPart.EXTREMITIES),
        ("EXTREMITY", BodyPart.EXTREMITIES),
        ("PELVIS", BodyPart.HIP_PELVIS),
        ("Hüfte", BodyPart.HIP_PELVIS),
        ("Becken", BodyPart.HIP_PELVIS),
        ("TSPINE", BodyPart.SPINE),
        ("LWS", BodyPart.SPINE),
        ("Brustwirbelsäule", BodyPart.SPINE),
        ("thoracic spine", BodyPart.SPINE),
        ("CHEST ABDOMEN", BodyPart.UNKNOWN),
        ("Ganzkörper", BodyPart.UNKNOWN),
        ("WHOLEBODY", BodyPart.UNKNOWN),
        ("", BodyPart.UNKNOWN),
        ("farm hearth blegs", BodyPart.UNKNOWN),
    ],
)
def test_words(text: str, part: BodyPart) -> None:
    assert body_part_from_text(text) is part


def test_descriptions_count_only_when_the_tag_is_empty() -> None:
    assert body_part_from_tags("", ("CT 2019", "Thorax")) is BodyPart.THORAX
    assert body_part_from_tags("OTHER", ("CT 2019", "Thorax")) is BodyPart.UNKNOWN
    assert body_part_from_tags("HEAD", ("Thorax",)) is BodyPart.HEAD_NECK


def test_table_of_labels(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("file;region\na/b.nii.gz;THORAX\n1.2.3;Becken\nc;5\nd;6\n", encoding="utf-8")
    expected = {
        "a/b.nii.gz": BodyPart.THORAX, "1.2.3": BodyPart.HIP_PELVIS, "c": BodyPart.SPINE, "d": BodyPart.UNKNOWN
    }  # fmt: skip
    assert read_labels_csv(file) == expected


@pytest.mark.parametrize("text", ["", "file\na", "file,region\na", "file,region\na,banana"])
def test_bad_tables_name_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"labels\.csv"):
        read_labels_csv(file)
