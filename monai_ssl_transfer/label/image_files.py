"""Image and label files of a datastore: which kinds there are, and the size and geometry that they declare."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_ssl_transfer.errors import LabelError

PHOTOGRAPH = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUME = (".nii.gz", ".nii", ".nrrd", ".mha")
RECORD = (".json",)
LOSSY = (".jpg", ".jpeg")
_WHOLE = 1e-3
"""How far a value of a label may lie from a whole number: what scaled NIfTI files leave."""
_SAME_PLACE = 1e-2
"""How far the affines of an image and its label may differ, mm."""


@dataclass(frozen=True)
class FileFacts:
    """What a file is.

    Args:
        kind: "photograph", "volume" or "record" (JSON: classes, boxes).
        shape: spatial shape: (H, W) of a photograph, (X, Y, Z) of a volume, () of a record.
        affine: (4, 4) from voxels to mm, of a NIfTI file.
    """

    kind: str
    shape: tuple[int, ...]
    affine: np.ndarray | None = None


def extension(name: str) -> str:
    """The known extension that a file name ends with, as it is written there ("" if none)."""
    lower = name.lower()
    fitting = [one for one in (*PHOTOGRAPH, *VOLUME, *RECORD) if lower.endswith(one) and len(one) < len(name)]
    return name[len(name) - max(map(len, fitting)) :] if fitting else ""


def split_name(name: str) -> tuple[str, str]:
    """The id that the datastore gives to a file, and the extension that was cut off."""
    ext = extension(name) or Path(name).suffix
    return name.removesuffix(ext), ext


def file_facts(path: Path, shown: str) -> FileFacts:
    """Read what a file declares of itself, without its pixels.

    Args:
        path: of the file, or a folder of a DICOM series.
        shown: how messages name it.

    Raises:
        LabelError: of no known type, or damaged.
    """
    kind = extension(path.name).lower()
    if path.is_dir():
        return FileFacts("volume", ())
    if not kind:
        known = " ".join((*PHOTOGRAPH, *VOLUME))
        raise LabelError(f"{shown} is of no type that is read here: give one of {known}.", 415)
    try:
        if kind in PHOTOGRAPH:
            return FileFacts("photograph", _photograph_shape(path))
        if kind in RECORD:
            return _record(path)
        return _volume(path, kind)
    except LabelError:
        raise
    except Exception as error:  # a damaged file leads readers into whatever error
        raise LabelError(
            f"{shown} cannot be read ({_reason(error)}): the file is damaged, save it again.", 422
        ) from error


def check_label(label: Path, image: FileFacts, shown: str) -> None:
    """Refuse a label that is not one of its image.

    Args:
        label: file of the label.
        image: what it is to be a label of.
        shown: how messages name the label.

    Raises:
        LabelError: another kind or size, another place in space, values that are no classes, or damaged.
    """
    facts = file_facts(label, shown)
    if facts.kind == "record":
        return
    if facts.kind != image.kind:
        wanted = "PNG mask" if image.kind == "photograph" else "NIfTI mask"
        raise LabelError(f"{shown} is a {facts.kind} and its image a {image.kind}: save the label as {wanted}.", 422)
    if extension(label.name).lower() in LOSSY:
        raise LabelError(f"{shown} is a JPEG, which changes the classes along borders: save the label as PNG.", 415)
    if image.shape and facts.shape != image.shape:
        sizes = (" x ".join(map(str, reversed(one) if len(one) == 2 else one)) for one in (facts.shape, image.shape))
        label_size, image_size = sizes
        raise LabelError(f"{shown} is {label_size} and its image {image_size}: draw the label on that image.", 422)
    if facts.affine is not None and image.affine is not None and not _same_place(facts, image):
        raise LabelError(
            f"{shown} lies elsewhere in space than its image (the affines differ): save the label with the geometry of "
            "the image.", 422
        )  # fmt: skip
    _check_values(label, facts, shown)


def _same_place(label: FileFacts, image: FileFacts) -> bool:
    """Whether every corner of the volume lies at the same place, within a hundredth of a millimetre per voxel row."""
    if label.affine is None or image.affine is None:
        return True
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    corners[:, :3] *= np.array(label.shape[:3]) - 1
    moved = np.abs(corners @ (label.affine - image.affine).T)[:, :3].max()
    return bool(moved <= _SAME_PLACE * max(1.0, float(np.abs(image.affine[:3, :3]).max())))


def check_readable(path: Path, shown: str) -> np.ndarray:
    """Read an image or a mask to its end.

    Args:
        path: of the file.
        shown: how messages name it.

    Returns:
        Its values, (H, W), (H, W, C) or (X, Y, Z).

    Raises:
        LabelError: of no known type, or damaged.
    """
    facts = file_facts(path, shown)
    try:
        return _pixels(path, facts)
    except Exception as error:  # a damaged file leads readers into whatever error
        raise LabelError(
            f"{shown} cannot be read ({_reason(error)}): the file is damaged, save it again.", 422
        ) from error


def _check_values(label: Path, facts: FileFacts, shown: str) -> None:
    values = check_readable(label, shown)
    if values.shape != facts.shape:
        raise LabelError(f"{shown} has several channels: save it with one, whose values are the classes.", 422)
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and np.abs(values - values.round()).max() < _WHOLE):
        raise LabelError(f"{shown} has values that are no whole numbers: save the classes, not probabilities.", 422)
    if values.size and values.min() < 0:
        raise LabelError(f"{shown} has negative values: classes begin with 0, the background.", 422)


def _pixels(path: Path, facts: FileFacts) -> np.ndarray:
    if facts.kind == "photograph":
        from PIL import Image

        with Image.open(path) as picture:
            return np.asarray(picture if picture.mode != "1" else picture.convert("L"))
    if extension(path.name).lower().startswith(".nii"):
        import nibabel

        return np.asanyarray(nibabel.load(path).dataobj).reshape(facts.shape)  # type: ignore[attr-defined]
    import itk

    return np.asarray(itk.array_from_image(itk.imread(str(path)))).T


def _photograph_shape(path: Path) -> tuple[int, int]:
    from PIL import Image

    with Image.open(path) as picture:
        turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF: shown on its side
        width, height = picture.size
    return (width, height) if turned else (height, width)


def _record(path: Path) -> FileFacts:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise LabelError(f'{path.name} holds no JSON object: write one such as {{"label": "name"}}.', 422)
    return FileFacts("record", ())


def _volume(path: Path, kind: str) -> FileFacts:
    if kind.startswith(".nii"):
        import nibabel

        header = nibabel.load(path)  # type: ignore[attr-defined]
        shape = tuple(int(one) for one in header.shape)  # type: ignore[attr-defined]
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        return FileFacts("volume", shape, np.asarray(header.affine, float))  # type: ignore[attr-defined]
    import itk

    reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        raise LabelError(f"{path.name} is no image that ITK reads: save it again.", 422)
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return FileFacts("volume", tuple(int(reader.GetDimensions(i)) for i in range(reader.GetNumberOfDimensions())))


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
