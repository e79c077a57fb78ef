"""Salted hashes instead of identifiers, and paths of which only harmless words stay readable."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

_WORDS = """
a abdomen abdominal acquisition and annotation annotations arterial axial body bone brain case cases chest
compressed contrast coronal csv ct cta ctbr data dataset dcm dcmqi delayed dicom dicomdir dir ed enhanced exam
example examples export extremities file files frame gaps ge gz head hip hu ibsi idc ima image images imagestr
imagests imaging img jpeg jpg json kidney label labels labelstr labelsts layout left lesion level license lidc
lits liver localizer lung lungs mask masks md medical mm mnist mr mri msd multiframe native neck nifti nii no
noise nrrd of patient patients pelvis phantom phase philips pixel png portal pydicom raw readme real recon
region report right rs rtstruct sagittal scan scans scout seg segmentation segmentations segmented series set
siemens slice slices small soft spacing spine store sts studies study syntaxes tar test thorax tilt tissue
toshiba totalsegmentator train transfer truncated trunk tsv txt uneven val validation venous volume volumes
whole window with without xml zip
"""
HARMLESS_WORDS = frozenset(_WORDS.split())
_TOKEN = re.compile(r"[^\W_]+")
# dates, UIDs and telephone numbers: three or more numbers in a row, or one long one
_NUMBERS = re.compile(r"(?<!\d)\d+(?:[-._ ]\d+){2,}(?!\d)|\d{6,}")


def private_folder(store: str | Path) -> Path:
    """The folder beside a store that holds its salt and the clear names of its files."""
    store = Path(store).absolute()
    return store.with_name(store.name + ".private")


class Pseudonyms:
    """Keyed hashes: the same text gives the same hash for one store and cannot be guessed without its salt.

    Args:
        salt: 32 random bytes (the BLAKE2b key).
    """

    def __init__(self, salt: bytes) -> None:
        self.salt = salt

    def hexadecimal(self, kind: str, text: str, length: int = 32) -> str:
        """Hash of a text as ``length`` (even) hexadecimal digits; ``kind`` keeps patients, series and files apart."""
        data = f"{kind}:{text}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(data, key=self.salt, digest_size=length // 2).hexdigest()

    def number(self, kind: str, text: str) -> int:
        """Hash of a text as an unsigned 64-bit number."""
        return int(self.hexadecimal(kind, text, 16), 16)


def open_salt(store: str | Path, store_has_series: bool) -> Pseudonyms:
    """Read the salt of a store, or make one for a new store, in ``<STORE>.private/salt`` (readable by its owner only).

    Raises:
        DataError: the store holds series already but its salt is gone.
    """
    folder = private_folder(store)
    file = folder / "salt"
    if file.exists():
        salt = file.read_bytes()
        if len(salt) != 32:
            raise DataError(
                f"{file}: the salt of {store} is damaged, restore it from a backup or ingest into a new store"
            )
        return Pseudonyms(salt)
    if store_has_series:
        raise DataError(
            f"{file} is missing, so new scans cannot be told from those already in {store}; "
            "put the folder back or ingest into a new store"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    salt = secrets.token_bytes(32)
    write_private(file, salt)
    return Pseudonyms(salt)


def write_private(file: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    write_durably(file, lambda stream: stream.write(data), mode=0o600)


def write_clear_names(store: str | Path, entries: Iterable[dict[str, Any]]) -> None:
    """Note in ``files.jsonl`` beside the store which clear path stands behind which entry of the report."""
    file = private_folder(store) / "files.jsonl"
    known: dict[str, dict[str, Any]] = {}
    if file.exists():
        known = {entry["id"]: entry for entry in map(json.loads, file.read_text(encoding="utf-8").splitlines())}
    known.update({entry["id"]: entry for entry in entries})
    write_private(file, "".join(json.dumps(entry) + "\n" for entry in known.values()).encode())


class PathRedactor:
    """Makes paths fit for a report: harmless imaging words and short numbers stay, all else becomes a salted hash.

    Args:
        pseudonyms: of the store.
        identifiers: names, numbers, dates and UIDs met in the headers; a word or number that is part of one is hashed
            too.
    """

    def __init__(self, pseudonyms: Pseudonyms, identifiers: Iterable[str]) -> None:
        self._pseudonyms = pseudonyms
        self._forbidden = _parts(identifiers)

    def redact(self, path: str) -> str:
        """The path with every telling part replaced by ``x`` and 8 hexadecimal digits; separators stay."""
        return "/".join(self._component(component) for component in path.split("/"))

    def _component(self, component: str) -> str:
        component = _NUMBERS.sub(lambda match: self._hash(match.group()), component)
        return "".join(
            part if part.startswith("\0") or not _TOKEN.fullmatch(part) else self._token(part)
            for part in re.split(r"(\0[^\0]*\0|[^\W_]+)", component)
        ).replace("\0", "")

    def _hash(self, text: str) -> str:
        return f"\0x{self._pseudonyms.hexadecimal('path', text.lower(), 8)}\0"

    def _token(self, token: str) -> str:
        lowered = token.lower()
        if lowered in self._forbidden:
            return self._hash(token)
        if (lowered.isascii() and lowered.isdigit() and len(lowered) <= 5) or lowered in HARMLESS_WORDS:
            return token
        worded = re.fullmatch(r"([a-z]+)(\d{1,5})", lowered)  # such as CT2, case12, IMG0001
        if worded and worded[1] in HARMLESS_WORDS and not {worded[1], worded[2]} & self._forbidden:
            return token
        return self._hash(token)


def _parts(identifiers: Iterable[str]) -> frozenset[str]:
    """Words of the identifiers, and the stretches of 3 to 5 digits in them.

    Of a UID only components of 4 digits and more count: shorter ones are so common that they tell nothing.
    """
    found: set[str] = set()
    for identifier in identifiers:
        words = [word.lower() for word in _TOKEN.findall(identifier)]
        if re.fullmatch(r"[\d.]*\.[\d.]*", identifier):
            found.update(word for word in words if len(word) >= 4)
            continue
        found.update(words)
        for digits in re.findall(r"\d{3,}", identifier):
            found.update(digits[start : start + size] for size in (3, 4, 5) for start in range(len(digits) - size + 1))
    return frozenset(found)
