"""Stored pixel values of DICOM slices: native ones straight from the file, compressed ones through GDCM."""

from __future__ import annotations

import struct
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom import encaps

from monai_ssl_transfer.data.ct.dicom_header import SliceHeader
from monai_ssl_transfer.data.ct.volume import AIR, to_hu
from monai_ssl_transfer.data.refusal import RefusedFile

_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"}
# what pydicom raises on pixel data that is not what it claims to be
_DAMAGED = (EOFError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError, struct.error)
_DECODABLE = {
    "1.2.840.10008.1.2.5",  # RLE
    *(f"1.2.840.10008.1.2.4.{code}" for code in (50, 51, 57, 70, 80, 81, 90, 91)),  # JPEG, JPEG-LS, JPEG 2000
}


def read_hu(header: SliceHeader) -> np.ndarray:
    """Pixels of one slice in HU, as they lie in the file (not yet reoriented).

    HU is ``slope * stored + intercept`` of this very slice; pixels at the padding value (or in the padding range)
    become air, -1024 HU.

    Returns:
        (rows, columns) int16 HU.

    Raises:
        RefusedFile: pixels are missing, cut short, or in a transfer syntax that cannot be decoded.
    """
    raw = _read_raw(header)
    stored = _sign(raw, header.bits_stored, header.signed)
    hu = to_hu(stored, header.slope, header.intercept)
    if header.padding is not None:
        low, high = header.padding
        # some writers use a padding value beyond the bits stored, so the untouched pixel is compared as well
        padded = (stored >= low) & (stored <= high) | (raw == low % (1 << header.bits_allocated))
        hu = np.where(padded, np.int16(AIR), hu)
    return hu


def _read_raw(header: SliceHeader) -> np.ndarray:
    """Pixels as unsigned numbers of the bits allocated."""
    try:
        if header.transfer_syntax in _NATIVE:
            return _read_native(header)
        if header.transfer_syntax in _DECODABLE:
            return _decode(header)
    except OSError as error:
        raise RefusedFile(
            header.path, "unreadable", f"cannot be read ({type(error).__name__}), check its rights"
        ) from error
    raise RefusedFile(
        header.path, "transfer syntax", "its compression cannot be decoded here, run gdcmconv --raw on it first"
    )


def _sign(values: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Take the low ``bits`` of each value as PixelRepresentation says, whatever the codec thought of them."""
    width = values.dtype.itemsize * 8
    kind = np.dtype(f"{'i' if signed else 'u'}{width // 8}")
    shift = kind.type(width - bits)
    values = values.view(kind)
    return values if shift <= 0 else (values << shift) >> shift


def _read_native(header: SliceHeader) -> np.ndarray:
    size = header.rows * header.columns * header.bits_allocated // 8
    if header.pixel_offset >= 0:
        with Path(header.path).open("rb") as file:
            file.seek(header.pixel_offset + header.frame * size)
            data = file.read(size)
    else:
        data = _pixel_data(header.path)[header.frame * size : (header.frame + 1) * size]
    if len(data) < size:
        raise RefusedFile(
            header.path, "truncated pixel data", "its pixel data is cut short, copy or export the file again"
        )
    order = ">" if header.transfer_syntax == "1.2.840.10008.1.2.2" else "<"
    values = np.frombuffer(data, dtype=f"{order}u{header.bits_allocated // 8}").reshape(header.rows, header.columns)
    return values.astype(values.dtype.newbyteorder("="))


@lru_cache(maxsize=1)
def _pixel_data(path: str) -> bytes:
    """The PixelData bytes of a file; the last file is kept, so that a multi-frame file is parsed once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True, specific_tags=["PixelData", "NumberOfFrames"])
            data = dataset.get("PixelData", None)
        except _DAMAGED as error:
            raise RefusedFile(
                path, "damaged pixel data", "its pixel data is damaged, copy or export the file again"
            ) from error
    if not data:
        raise RefusedFile(path, "no pixel data", "has no pixel data")
    return bytes(data)


def _compressed_frame(header: SliceHeader) -> bytes:
    try:
        return _frames(header.path)[header.frame]
    except _DAMAGED as error:
        sentence = "its compressed pixel data is damaged, export the file again"
        raise RefusedFile(header.path, "damaged pixel data", sentence) from error


@lru_cache(maxsize=1)
def _frames(path: str) -> list[bytes]:
    """The compressed frames of a file; pydicom 2.4 must be told their number to join fragments."""
    data = _pixel_data(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
        count = int(dataset.get("NumberOfFrames", 1) or 1)
        if hasattr(encaps, "generate_frames"):  # pydicom 3
            return [bytes(frame) for frame in encaps.generate_frames(data, number_of_frames=count)]
        return [bytes(frame) for frame in encaps.generate_pixel_data_frame(data, count)]


def _decode(header: SliceHeader) -> np.ndarray:
    """Decode one compressed frame with GDCM.

    It gets a minimal file of the pixels alone: no slope, so that nothing is rescaled twice, and no patient.
    """
    frame = _compressed_frame(header)
    with tempfile.TemporaryDirectory(prefix="ssl-transfer-") as folder:
        file = Path(folder) / "frame.dcm"
        file.write_bytes(_minimal_file(header, frame))
        try:
            values = _gdcm_read(file)
        except RuntimeError as error:  # every ITK exception; its text holds paths, so it stops here
            raise RefusedFile(
                header.path, "damaged pixel data", "its compressed pixel data cannot be decoded, export it again"
            ) from error
    if values.size != header.rows * header.columns:
        raise RefusedFile(
            header.path, "damaged pixel data", "its compressed pixels have another size than its header says"
        )
    return _unsigned(values.reshape(header.rows, header.columns))


def _gdcm_read(file: Path) -> np.ndarray:
    import itk  # slow to import and needed for compressed files only

    image_io = itk.GDCMImageIO.New()
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    return np.array(itk.array_from_image(itk.imread(str(file), imageio=image_io)))


def _unsigned(values: np.ndarray) -> np.ndarray:
    if np.issubdtype(values.dtype, np.floating):
        values = np.rint(values).astype(np.int32)
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _minimal_file(header: SliceHeader, frame: bytes) -> bytes:
    """A secondary capture with this one frame, explicit VR little endian around the compressed bytes."""

    def short(group: int, element: int, kind: bytes, value: bytes) -> bytes:
        value += (b"\0" if kind == b"UI" else b" ") * (len(value) % 2)
        return struct.pack("<HH2sH", group, element, kind, len(value)) + value

    def number(element: int, value: int) -> bytes:
        return short(0x0028, element, b"US", struct.pack("<H", value))

    capture, instance = b"1.2.840.10008.5.1.4.1.1.7", b"1.2.3.4.5"
    meta = struct.pack("<HH2sHI2s", 2, 1, b"OB", 0, 2, b"\0\1")
    meta += short(2, 2, b"UI", capture) + short(2, 3, b"UI", instance)
    meta += short(2, 0x10, b"UI", header.transfer_syntax.encode()) + short(2, 0x12, b"UI", instance)
    image = short(8, 0x16, b"UI", capture) + short(8, 0x18, b"UI", instance) + number(2, 1)
    image += short(0x28, 4, b"CS", b"MONOCHROME2") + number(0x10, header.rows) + number(0x11, header.columns)
    image += number(0x100, header.bits_allocated) + number(0x101, header.bits_stored)
    image += number(0x102, header.bits_stored - 1) + number(0x103, int(header.signed))
    frame += b"\0" * (len(frame) % 2)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    pixels += struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    group = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    return b"\0" * 128 + b"DICM" + group + meta + image + pixels
