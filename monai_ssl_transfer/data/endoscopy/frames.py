"""Endoscopic photographs and their masks as upright pixels, whatever file they come in, and masks back into files.

Pillow decodes. A picture is turned as its EXIF orientation says, so that rows and columns are what a viewer shows.
Colour profiles are not applied: the encoders were trained without them. JPEG files are decoded in full: Pillow's draft
mode at half size saves two fifths of the time on the largest twentieth of Kvasir-SEG's frames, and changes what the
network sees at 224 pixels by up to 24 of 255.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageChops,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from monai_ssl_transfer.durable import write_durably
from monai_ssl_transfer.errors import DataError

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2")
"""Ends of the names of photographs, in lower case; a file of another name is passed over in a folder."""

# What Pillow may try: the formats of photographs, none of its forty rare ones, whose decoders see little use.
_FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    GifImagePlugin.GifImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    Jpeg2KImagePlugin.Jpeg2KImageFile.format,
)
_ORIENTATION, _COLUMNS, _ROWS, _BITS = 0x0112, 256, 257, 258
_PNG_BITS = 24  # where a PNG file tells its bits per channel (PNG 3rd edition, 11.2.1)
# Way from the stored to the upright picture, by EXIF orientation: transpose, then reverse rows, then reverse columns.
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
# JPEG coding of a black mask stays below this value; Kvasir-SEG's background reaches 8.
_JPEG_NOISE = 16
_CONVERTIBLE = ("1", "L", "P", "RGB", "RGBX", "RGBA", "RGBa", "LA", "La", "PA", "CMYK", "YCbCr")
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
)
"""What Pillow raises of damaged files."""


def read_frame(path: str | Path, stretch: bool = False) -> np.ndarray:
    """Read a photograph as upright RGB.

    Grey and 1-bit pictures give three equal channels, palettes their colours; transparent pixels are laid on black
    (so look the borders of endoscopes); CMYK is converted by the simple formula, Adobe's inverted kind too. Of 16-bit
    values the high byte is taken (what Pillow does for colour, and here for grey), without stretching.

    Args:
        path: JPEG, PNG, TIFF, BMP, GIF, WebP or JPEG 2000 file of one picture.
        stretch: bring 16-bit grey from its own smallest and largest value to 0..255 instead, as radiographs need, of
            whose 16 bits 10 or 12 are used (an even picture becomes black); pictures of 8 bits stay as they are.

    Returns:
        (rows, columns, 3) uint8, the caller's own.

    Raises:
        DataError: no such file, no picture, a damaged or truncated one, several pictures in one file, or 32-bit pixels.
    """
    image, turn = _load(Path(path))
    pixels = _stretched(np.asarray(image)) if stretch and _is_deep_grey(image) else _rgb(image, Path(path))
    return _upright(pixels, turn).copy()


def read_mask(path: str | Path, ones: bool = False) -> np.ndarray:
    """Read a binary mask: what reaches the upper half of the range belongs to the finding.

    Masks of public data sets are JPEG files whose values scatter around 0 and 255, often stored as RGB: the largest
    channel counts and transparency does not.

    Args:
        path: picture of one mask.
        ones: 1 means the finding where nothing is larger and the file is lossless, as annotation programs write masks.

    Returns:
        (rows, columns) bool, upright.

    Raises:
        DataError: as for `read_frame`; also where values above 0 stay in the lower half, as 0 and 1 would in 8 bits.
    """
    path = Path(path)
    image, turn = _load(path)
    values = _mask_values(image, path)
    mask = values > np.iinfo(values.dtype).max // 2
    stored = _deep_colours(path) if _is_deep_colour(image, path) else values
    top, largest = int(np.iinfo(stored.dtype).max), int(stored.max(initial=0))
    noise = _JPEG_NOISE if image.format in ("JPEG", "MPO") else 0
    if ones and not noise and largest == 1:
        mask = values > 0
    elif noise < largest <= top // 2:
        raise DataError(
            f"{path} is no binary mask, its largest value is {largest} of {top}: "
            f"store 0 for background, {top} for findings"
        )
    return _upright(mask, turn).copy()


def largest_channel(frame: np.ndarray) -> np.ndarray:
    """Largest of the three channels of each pixel; ten times as fast as ``frame.max(axis=2)``.

    Args:
        frame: (rows, columns, 3) uint8.

    Returns:
        (rows, columns) uint8.
    """
    red, green, blue = cv2.split(np.ascontiguousarray(frame))
    return cv2.max(cv2.max(red, green), blue)


def frame_size(path: str | Path) -> tuple[int, int]:
    """Size of the upright picture, from the file's header alone.

    Args:
        path: picture file.

    Returns:
        Rows and columns.

    Raises:
        DataError: no such file or no picture.
    """
    (rows, columns), orientation = _stored(Path(path))
    return (columns, rows) if _TURNS[orientation][0] else (rows, columns)


def write_mask(path: str | Path, mask: np.ndarray, like: str | Path) -> None:
    """Write a mask as PNG that lies on its photograph in every program.

    The pixels are turned into the photograph's stored orientation and the file carries the same EXIF orientation, so
    that both fit for programs that honour the tag and for those that ignore it. (A TIFF photograph is turned by
    Pillow itself while it reads: its mask is written upright, without a tag.)

    Args:
        path: PNG file to write.
        mask: (rows, columns) of the upright photograph; bool is written as 0 and 255, uint8 (a label map) as it is.
        like: the photograph.

    Raises:
        DataError: the mask has another size than the photograph, or another type.
    """
    if mask.dtype != bool and mask.dtype != np.uint8:
        raise DataError(f"{path}: a mask is bool or uint8, not {mask.dtype}: convert it first")
    _write_like(Path(path), mask.astype(np.uint8) * 255 if mask.dtype == bool else mask, Path(like))


def write_grey16(path: str | Path, image: np.ndarray, like: str | Path) -> None:
    """Write a 16-bit grey picture (a depth map) as PNG that lies on its photograph as `write_mask` has it.

    Args:
        path: PNG file to write.
        image: (rows, columns) uint16, upright.
        like: the photograph.

    Raises:
        DataError: another size than the photograph's, or another type.
    """
    if image.dtype != np.uint16:
        raise DataError(f"{path}: a 16-bit picture is uint16, not {image.dtype}: convert it first")
    _write_like(Path(path), image, Path(like))


def _write_like(path: Path, upright: np.ndarray, like: Path) -> None:
    if upright.shape != (size := frame_size(like)):
        shape = " x ".join(str(n) for n in upright.shape)
        raise DataError(f"{path}: {shape} pixels do not fit {like} with {size[0]} x {size[1]}: give the frame's size")
    orientation = _stored(like)[1]
    transposed, rows, columns = _TURNS[orientation]
    stored = upright[:: -1 if rows else 1, :: -1 if columns else 1]
    image = Image.fromarray(np.ascontiguousarray(stored.T if transposed else stored))
    options: dict[str, Any] = {}
    if orientation != 1:
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        options["exif"] = exif
    write_durably(path, lambda file: image.save(file, "PNG", **options))


def _upright(stored: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    transposed, rows, columns = turn
    if transposed:
        stored = stored.swapaxes(0, 1)
    return stored[:: -1 if rows else 1, :: -1 if columns else 1]


def _rgb(image: Image.Image, path: Path) -> np.ndarray:
    """(rows, columns, 3) uint8 as stored."""
    if image.mode in ("RGBA", "LA", "PA") or (image.mode in ("P", "L", "RGB") and "transparency" in image.info):
        image = image.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image))[..., :3]
    return _colours(image, path)


def _stretched(values: np.ndarray) -> np.ndarray:
    """16-bit grey (rows, columns) as (rows, columns, 3) uint8, its smallest value 0 and its largest 255."""
    low, high = int(values.min()), int(values.max())
    grey = np.rint((values.astype(np.float32) - low) * (255 / max(high - low, 1))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _mask_values(image: Image.Image, path: Path) -> np.ndarray:
    """(rows, columns) uint8 or uint16 as stored. Not the high byte of 16 bits: 0 and 255 would both become 0."""
    if _is_deep_grey(image):
        return np.asarray(image).astype(np.uint16)
    return np.asarray(image) if image.mode == "L" else largest_channel(_colours(image, path))


def _is_deep_grey(image: Image.Image) -> bool:
    """Whether it is 16-bit grey; before Pillow 11, PNG files of that kind have mode "I"."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")


def _is_deep_colour(image: Image.Image, path: Path) -> bool:
    """Whether it is 16-bit colour (or grey with transparency), of which Pillow gives the high bytes alone."""
    if image.mode not in ("RGB", "RGBA", "RGBX", "LA"):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(_BITS, (8,))) > 8
    if image.format != "PNG":
        return False
    with path.open("rb") as file:
        return file.read(_PNG_BITS + 1)[_PNG_BITS] == 16


def _deep_colours(path: Path) -> np.ndarray:
    """(rows, columns, 3) uint16 as stored, in any order of the channels, transparency taken off."""
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        raise DataError(f"{path} has 16-bit pixels that cannot be read: save it with 8 bits per channel")
    return stored[..., :3] if stored.ndim == 3 else stored


def _colours(image: Image.Image, path: Path) -> np.ndarray:
    """(rows, columns, 3) uint8 as stored, transparency taken off."""
    if _is_deep_grey(image):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode not in _CONVERTIBLE:
        raise DataError(f"{path} has pixels of mode {image.mode}: save it with 8 or 16 bits per channel, grey or RGB")
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted, and so does OpenCV.
        image = ImageChops.invert(image)
    return np.asarray(image.convert("RGB"))


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return DataError(f"{path} is no file: check the path")
    if isinstance(error, UnidentifiedImageError):
        return DataError(f"{path} is no picture in a format that is read here: remove it or save it as PNG or JPEG")
    return DataError(f"{path} cannot be read as a picture ({error}): restore the file or remove it")


def _load(path: Path) -> tuple[Image.Image, tuple[bool, bool, bool]]:
    """Decoded picture and the turn that makes it upright."""
    try:
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        pictures = getattr(image, "n_frames", 1)
        image.load()
        # Pillow turns a TIFF picture while it loads.
        orientation = 1 if image.format == "TIFF" else _tag(image)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    # The second picture of an MPO file is a preview or the other eye of a stereo camera: the first is the photograph.
    if pictures > 1 and image.format != "MPO":
        raise DataError(f"{path} holds {pictures} pictures: save each in a file of its own")
    if image.format == "JPEG" and not _jpeg_ends(data):
        raise DataError(f"{path} is a truncated JPEG, its end mark is missing: restore the file or remove it")
    return image, _TURNS[orientation]


def _tag(image: Image.Image) -> int:
    # Not image.getexif(): for PNG that decodes the whole picture in search of a description behind it.
    orientation = Image.Image.getexif(image).get(_ORIENTATION, 1)
    return orientation if orientation in _TURNS else 1


def _jpeg_ends(data: bytes) -> bool:
    """Whether an end mark follows the first scan: Pillow accepts a file whose end was lost and filled with zeros."""
    position = 2
    while data[position : position + 1] == b"\xff" and position + 4 <= len(data):
        if data[position + 1] == 0xDA:
            return data.find(b"\xff\xd9", position) >= 0
        # Fill bytes may precede a marker; every other segment tells its length.
        position += 1 if data[position + 1] == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True


def _png_describes_late(file: BinaryIO) -> bool:
    """Whether a PNG file has its EXIF description behind the pixels."""
    file.seek(8)
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind in (b"eXIf", b"IEND"):
            return kind == b"eXIf"
        file.seek(length + 4, io.SEEK_CUR)
    return False


def _stored(path: Path) -> tuple[tuple[int, int], int]:
    """Rows and columns as stored (for TIFF: as Pillow shows them) and EXIF orientation."""
    try:
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            if image.format == "TIFF":
                columns, rows = image.tag_v2[_COLUMNS], image.tag_v2[_ROWS]  # type: ignore[attr-defined]
                turned = _TURNS.get(image.tag_v2.get(_ORIENTATION, 1), _TURNS[1])[0]  # type: ignore[attr-defined]
                return ((columns, rows) if turned else (rows, columns)), 1
            columns, rows = image.size
            if image.format == "PNG" and "exif" not in image.info and _png_describes_late(file):
                image.load()
            return (rows, columns), _tag(image)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
