"""Paths in reports hold nothing that tells a patient apart."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_ssl_transfer.data.redaction import PathRedactor, Pseudonyms, open_salt, private_folder
from monai_ssl_transfer.errors import DataError

SALT = Pseudonyms(b"s" * 32)


@pytest.mark.parametrize("path", ["ct/volume-12.nii.gz", "series_3/slice 0004.dcm", "CT2/IMG0003", "DICOMDIR"])
def test_harmless_paths_stay(path: str) -> None:
    assert PathRedactor(SALT, []).redact(path) == path


@pytest.mark.parametrize(
    ("path", "telling"),
    [
        ("Mueller^Hans/ct.dcm", ["Mueller", "Hans"]),
        ("case-1953-04-12/1.dcm", ["1953", "04-12"]),
        ("12.4.1953 ct/1.dcm", ["1953", "12.4"]),
        ("19530412/ct.dcm", ["1953"]),
        ("MRN123456/ct.dcm", ["123456"]),
        ("1.2.840.113619.2.55/x.dcm", ["113619", "2.55"]),
        ("Müller/ct.dcm", ["ller"]),
        ("ct/case_Yilmaz7.nii", ["Yilmaz"]),
    ],
)
def test_telling_parts_are_hashed(path: str, telling: list[str]) -> None:
    redacted = PathRedactor(SALT, []).redact(path)
    assert not any(text in redacted for text in telling)
    assert redacted.count("/") == path.count("/") and redacted == PathRedactor(SALT, []).redact(path)


def test_words_and_numbers_of_the_headers_are_hashed_though_harmless_elsewhere() -> None:
    redactor = PathRedactor(SALT, ["Head^Case", "0314", "ID-48213", "20240131", "1.2.3.77777"])
    for telling in ("head", "case", "0314", "48213", "8213", "2024", "77777"):
        assert telling not in redactor.redact(f"ct/{telling}/1.dcm").lower()
    assert redactor.redact("ct/case7.nii") != "ct/case7.nii"
    assert redactor.redact("ct/1/2/3.dcm") == "ct/1/2/3.dcm"


@given(st.text(min_size=6, max_size=30))
def test_no_identifier_survives(identifier: str) -> None:
    redacted = PathRedactor(SALT, [identifier]).redact(f"ct/{identifier}/scan.dcm")
    long_words = [word for word in identifier.split() if len(word) > 5 and word.isalnum()]
    assert not any(word in redacted for word in long_words)


def test_salt_is_private_and_needed(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = open_salt(store, store_has_series=False)
    assert open_salt(store, store_has_series=True).salt == first.salt
    folder = private_folder(store)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "salt").stat().st_mode) == 0o600
    assert folder.parent == store.parent and folder != store
    (folder / "salt").unlink()
    with pytest.raises(DataError, match="put the folder back"):
        open_salt(store, store_has_series=True)
    assert open_salt(tmp_path / "other", store_has_series=False).salt != first.salt
