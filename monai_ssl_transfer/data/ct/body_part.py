"""Body regions of CT slices: from the DICOM header in English and German, or from a CSV of the user."""

from __future__ import annotations

import csv
import re
from enum import IntEnum
from pathlib import Path

from monai_ssl_transfer.errors import DataError


class BodyPart(IntEnum):
    """Body region of a slice, in RadNet's order (Jonske et al., CMPB 261:108634, 2025)."""

    HEAD_NECK = 0
    THORAX = 1
    ABDOMEN = 2
    EXTREMITIES = 3
    HIP_PELVIS = 4
    SPINE = 5
    UNKNOWN = 255


# Words are matched whole ("arm" does not match "Darm"); a trailing * also matches longer words ("schaedel*":
# "Schaedelbasis"),
# a leading * compounds ("*wirbelsaeule"). Umlauts are folded before matching. The first part with a match wins, so
# the narrow ones (spine, joints) stand before the wide ones.
_RULES: tuple[tuple[BodyPart, str], ...] = (
    (BodyPart.UNKNOWN, "wholebody ganzkoerper* polytrauma traumaspirale"),
    (
        BodyPart.SPINE,
        "*spine spinal *wirbelsaeule *wirbel* ws hws bws lws lwk bwk hwk vertebra* myelo* sacrum sakrum "
        "coccyx steissbein kreuzbein tspine lspine cspine",
    ),
    (
        BodyPart.EXTREMITIES,
        "extremit* arm arms oberarm* unterarm* elbow *ellenbogen* wrist handgelenk* hand hands finger* thumb "
        "daumen leg legs bein beine oberschenkel* unterschenkel* thigh calf wade femur tibia fibula knee knie "
        "kniegelenk* ankle sprunggelenk* osg usg foot feet fuss fuesse calcaneus fersenbein toe zehe* "
        "shoulder schulter* humerus radius ulna forearm upperarm lowerleg runoff *knie *fuss *hand uext lext "
        "scaphoid kahnbein",
    ),
    (
        BodyPart.HIP_PELVIS,
        "hip hips huefte* hueftgelenk* pelvi* becken* prostat* bladder *harnblase uterus rectum rektum isg acetabul*",
    ),
    (
        BodyPart.HEAD_NECK,
        "head kopf* skull schaedel* brain gehirn hirn* *schaedel neck hals* headneck kopfhals face gesicht* "
        "facial orbit* nnh sinus sinuses nasennebenhoehle* felsenbein* temporal iac ear ohr jaw kiefer* "
        "mandib* maxilla* larynx pharynx cranium cranial ccranio* ccta_head cct sella hypophys* thyroid "
        "schilddruese* cerebr* zerebr* dental mittelgesicht*",
    ),
    (
        BodyPart.THORAX,
        "chest thorax* thorac* thorak* brust* lung lunge* lungs pulmo* heart herz* cardiac kardial* coronar* "
        "koronar* kardio* cardio* mediastin* breast mamma rib ribs rippe* sternum brustbein aortenbogen hrct "
        "lae pe",
    ),
    (
        BodyPart.ABDOMEN,
        "abdom* bauch* oberbauch* unterbauch* liver leber* kidney* niere* renal pancreas pankreas spleen milz "
        "stomach magen* darm* bowel colon kolon colonography colonoscopy gallbladder gallenblase adrenal* "
        "nebenniere* urogram* urographie* retroperiton*",
    ),
)


def _pattern(words: str) -> re.Pattern[str]:
    parts = [re.escape(word).replace(r"\*", r"[a-z]*") for word in words.split()]
    return re.compile(r"(?<![a-z])(?:" + "|".join(parts) + r")(?![a-z])")


_PATTERNS = tuple((part, _pattern(words)) for part, words in _RULES)
_FOLDS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "_": " "})


def body_part_from_text(text: str) -> BodyPart:
    """Region that a free text names; ``UNKNOWN`` if none.

    A text that names head, thorax, abdomen and so on more than once ("Thorax/Abdomen") says nothing about a single
    slice and gives ``UNKNOWN``; a spine, joint or limb beside its region ("thoracic spine", "hip left leg") is the
    first rule that matches.

    Args:
        text: body part, study or series description, English or German, any case, umlauts or ae/oe/ue.
    """
    folded = text.strip().lower().translate(_FOLDS)
    if folded in {"tap", "cap", "ntap"} or re.search(r"(?<![a-z])(?:whole body|ganz ?koerper)(?![a-z])", folded):
        return BodyPart.UNKNOWN
    found = [part for part, pattern in _PATTERNS if pattern.search(folded)]
    if not found:
        return BodyPart.UNKNOWN
    if found[0] in (BodyPart.UNKNOWN, BodyPart.SPINE, BodyPart.EXTREMITIES):
        return found[0]
    return found[0] if len(found) == 1 else BodyPart.UNKNOWN


def body_part_from_tags(examined: str, descriptions: tuple[str, ...]) -> BodyPart:
    """Region from BodyPartExamined (0018,0015); the descriptions are asked only when that tag is empty.

    Args:
        examined: value of BodyPartExamined, may be empty.
        descriptions: StudyDescription, SeriesDescription and ProtocolName, in the order in which they are believed.
    """
    if examined.strip():
        return body_part_from_text(examined)
    for description in descriptions:
        part = body_part_from_text(description)
        if part is not BodyPart.UNKNOWN:
            return part
    return BodyPart.UNKNOWN


_NAMES = {
    **{part.name.lower(): part for part in BodyPart},
    **{str(int(part)): part for part in BodyPart},
    "6": BodyPart.UNKNOWN,  # RadNet's "whole body or unknown"
    "": BodyPart.UNKNOWN,
}


def body_part_from_label(name: str) -> BodyPart:
    """Region that a label names: the enum's name, its number, or words; ``KeyError`` if it names none."""
    key = re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
    if key in _NAMES:
        return _NAMES[key]
    part = body_part_from_text(name)
    if part is BodyPart.UNKNOWN:
        raise KeyError(name)
    return part


def read_labels_csv(path: str | Path) -> dict[str, BodyPart]:
    """Read a table of body regions.

    Args:
        path: CSV (comma or semicolon) with a header; first column a file (relative to the scanned folder, or absolute),
            a folder or a SeriesInstanceUID; second column the region: name of a ``BodyPart``, its number 0..5, or words
            such as "Becken".

    Returns:
        Region per first-column text.

    Raises:
        DataError: the file is not such a table, or a label names no region.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: the table of labels cannot be read as UTF-8 text, check the path and save it so"
        ) from error
    delimiter = ";" if text.partition("\n")[0].count(";") > text.partition("\n")[0].count(",") else ","
    rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if any(cell.strip() for cell in row)]
    if not rows or len(rows[0]) < 2:
        raise DataError(f"{path}: needs a header and two columns, the file or series and its body region")
    labels: dict[str, BodyPart] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) < 2:
            raise DataError(f"{path}: row {number} has one column, needs the file or series and its body region")
        try:
            labels[row[0].strip()] = body_part_from_label(row[1])
        except KeyError as error:
            names = ", ".join(part.name for part in BodyPart)
            raise DataError(f"{path}: row {number}: '{row[1]}' is no body region, use one of {names}") from error
    return labels
