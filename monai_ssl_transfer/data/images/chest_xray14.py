"""NIH ChestX-ray14 (ChestX-ray8) on disk: radiographs with up to 14 findings each, by patient.

``Data_Entry_2017.csv`` (or ``Data_Entry_2017_v2020.csv``), ``train_val_list.txt`` and ``test_list.txt`` beside
``images_001/images/*.png`` to ``images_012`` or one folder ``images``. Wang et al., ChestX-ray8, CVPR 2017.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from pathlib import Path

from monai_ssl_transfer.data.endoscopy.frame_listing import Case, existing_folder, refuse_unknown
from monai_ssl_transfer.data.images.division import PART
from monai_ssl_transfer.errors import DataError

logger = logging.getLogger(__name__)

NO_FINDING = "No Finding"
_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
_SETS = {"chestxray14": 14, "chestxray8": 8}
"""How many of the findings a label set has: ChestX-ray8's are the first eight."""
_SPELLINGS = {"infiltrate": "Infiltration", "pleuralthickening": "Pleural_Thickening", "nofinding": NO_FINDING} | {
    name.lower().replace("_", ""): name for name in _FINDINGS
}
_EXPECTED = "the folder of ChestX-ray14, with Data_Entry_2017.csv and images_001/images or images"
_IMAGE, _LABELS, _PATIENT = "Image Index", "Finding Labels", "Patient ID"


def finding_names(label_set: str = "chestxray14", no_finding: bool = False) -> tuple[str, ...]:
    """Names of the findings, in the order of the outputs.

    Args:
        label_set: "chestxray14" (14 findings) or "chestxray8" (the first eight of them).
        no_finding: a further output for radiographs without any of the 14 findings.

    Raises:
        DataError: unknown label set.
    """
    if label_set not in _SETS:
        raise DataError(f"the label set '{label_set}' is unknown: choose one of {', '.join(_SETS)}.")
    return _FINDINGS[: _SETS[label_set]] + ((NO_FINDING,) if no_finding else ())


def chest_xray_cases(
    dataset_dir: str | Path,
    label_set: str = "chestxray14",
    no_finding: bool = False,
    official_parts: bool = True,
    only_present: bool = False,
) -> list[Case]:
    """List the radiographs with their findings and patients.

    Args:
        dataset_dir: folder with the CSV, the two lists and the images.
        label_set: as for `finding_names`.
        no_finding: likewise.
        official_parts: read ``train_val_list.txt`` and ``test_list.txt``, which divide the patients.
        only_present: leave out radiographs of the CSV whose files are not there, for a share of the twelve archives;
            the log says how many.

    Returns:
        One dict per radiograph in the order of the CSV: "name" (its file), "image", "class" (0 or 1 per finding),
        "group" (patient), "stratum" (its rarest finding), and "part": "test" for those of ``test_list.txt``.

    Raises:
        DataError: a file is missing or damaged, a finding is unknown, an image is missing or not listed, or a
            patient is in both lists.
    """
    folder = existing_folder(dataset_dir, _EXPECTED)
    names = finding_names(label_set, no_finding)
    table = _table(folder)
    findings, patients = _read_table(table)
    images = _images(folder)
    unlisted = sorted(images.keys() - findings.keys())
    if unlisted:
        raise DataError(
            f"{images[unlisted[0]]} is not listed in {table.name} ({len(unlisted)} such): restore the CSV that belongs "
            "to these images, or remove them."
        )
    missing = [name for name in findings if name not in images]
    if missing and not only_present:
        raise DataError(
            f"{table} lists {missing[0]}, which is in no folder images of {folder} ({len(missing)} such): unpack the "
            "other archives, or set only_present to true to use what is there."
        )
    if missing:
        logger.warning("%d of %d radiographs of %s are not there and are left out", len(missing), len(findings), table)
    tests = _official_tests(folder, findings, patients) if official_parts else set()
    return _cases({name: findings[name] for name in findings if name in images}, patients, images, names, tests)


def _cases(
    findings: dict[str, set[str]],
    patients: dict[str, str],
    images: dict[str, Path],
    names: tuple[str, ...],
    tests: set[str],
) -> list[Case]:
    frequency = Counter(one for shown in findings.values() for one in shown)
    cases: list[Case] = []
    for name, shown in findings.items():
        known = [one for one in names if one in shown]
        rarest = min(known, key=lambda one: (frequency[one], one)) if known else NO_FINDING
        case = {
            "name": name,
            "image": str(images[name]),
            "class": [int(one in shown) for one in names],
            "group": f"patient-{patients[name]}",
            "stratum": rarest,
        }
        cases.append(case | ({PART: "test"} if name in tests else {}))
    if not cases:
        raise DataError("none of the radiographs of the CSV is there: unpack the archives of ChestX-ray14.")
    return cases


def _table(folder: Path) -> Path:
    found = sorted(folder.glob("Data_Entry_2017*.csv"))
    if len(found) != 1:
        problem = f"holds {found[0].name} and {found[1].name}" if found else "holds no Data_Entry_2017.csv"
        raise DataError(f"{folder} {problem}: give {_EXPECTED}" + (", and keep one CSV." if found else "."))
    return found[0]


def _read_table(file: Path) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Findings and patient by image."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as a table ({error}): restore it.") from error
    if not rows or not {_IMAGE, _LABELS, _PATIENT} <= rows[0].keys():
        raise DataError(f"{file} has no rows with {_IMAGE}, {_LABELS} and {_PATIENT}: restore it.")
    findings: dict[str, set[str]] = {}
    patients: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        name, patient = (row[_IMAGE] or "").strip(), (row[_PATIENT] or "").strip()
        if not name or not patient:
            raise DataError(f"{file} names no image or no patient in line {line}: correct the line.")
        if name in findings:
            raise DataError(f"{file} lists {name} twice (line {line}): keep one of the lines.")
        findings[name], patients[name] = _findings_of(row[_LABELS] or "", file, line), patient
    return findings, patients


def _findings_of(text: str, file: Path, line: int) -> set[str]:
    shown: set[str] = set()
    for part in text.split("|"):
        plain = part.strip().lower().replace("_", "").replace(" ", "").replace("-", "")
        if plain not in _SPELLINGS:
            raise DataError(f"{file} names the unknown finding '{part.strip()}' in line {line}: correct the line.")
        shown.add(_SPELLINGS[plain])
    if NO_FINDING in shown and len(shown) > 1:
        raise DataError(f"{file} says {NO_FINDING} beside another finding in line {line}: correct the line.")
    return shown


def _images(folder: Path) -> dict[str, Path]:
    """Every PNG of ``images*/images`` and ``images*``, by name."""
    found: dict[str, Path] = {}
    places = [place for one in sorted(folder.glob("images*")) for place in (one, one / "images") if place.is_dir()]
    for place in places:
        for path in sorted(place.glob("*.png")):
            if path.name.startswith("."):
                continue
            if path.name in found:
                raise DataError(f"{found[path.name]} and {path} are the same radiograph: keep one of them.")
            found[path.name] = path
    if not found:
        raise DataError(f"{folder} holds no folder images with PNG files: give {_EXPECTED}.")
    return found


def _official_tests(folder: Path, findings: dict[str, set[str]], patients: dict[str, str]) -> set[str]:
    """Images of the official test list, after both lists were checked."""
    listed = {name: _read_list(folder / name) for name in ("train_val_list.txt", "test_list.txt")}
    for name, images in listed.items():
        refuse_unknown(images, findings, folder / name, "row in the CSV")
    train, test = listed.values()
    unlisted = findings.keys() - train - test
    if unlisted:
        raise DataError(
            f"{min(unlisted)} is neither in train_val_list.txt nor in test_list.txt of {folder} ({len(unlisted)} "
            "such): restore the lists, or set official_parts to false to divide the patients anew."
        )
    both = {patients[name] for name in train} & {patients[name] for name in test}
    if both:
        raise DataError(
            f"patient {min(both)} is in train_val_list.txt and in test_list.txt of {folder} ({len(both)} such): "
            "restore the lists, or set official_parts to false to divide the patients anew."
        )
    return test


def _read_list(file: Path) -> set[str]:
    try:
        names = file.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} cannot be read ({error}): restore it, or set official_parts to false to divide the patients anew."
        ) from error
    return set(names)
