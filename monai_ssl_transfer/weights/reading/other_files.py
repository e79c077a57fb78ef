"""What a file is that holds no weights, from its first bytes, and what to do instead."""

from __future__ import annotations

import tarfile
from pathlib import Path

from monai_ssl_transfer.errors import WeightsError

STARTS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        "is a pointer of git-lfs, not the file itself",
        "run `git lfs pull` in its repository and give the file that comes",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "is an HDF5 file (Keras, TensorFlow)",
        "give weights of PyTorch: .pth, .pt or .safetensors",
    ),
    (b"GGUF", "is a GGUF file of a language model", "give weights of PyTorch: .pth, .pt or .safetensors"),
    (
        b"model_checkpoint_path:",
        "is the index of a folder of TensorFlow checkpoints",
        "give weights of PyTorch: .pth, .pt or .safetensors, or an AugReg .npz",
    ),
    *(
        (magic, f"is compressed ({kind})", f"unpack it with {tool} and give the file of weights inside")
        for magic, kind, tool in (
            (b"\x1f\x8b", "gzip", "gunzip or tar -xzf"),
            (b"BZh", "bzip2", "bunzip2 or tar -xjf"),
            (b"\xfd7zXZ\x00", "xz", "unxz or tar -xJf"),
            (b"7z\xbc\xaf\x27\x1c", "7-Zip", "7z x"),
            (b"Rar!\x1a\x07", "RAR", "unrar x"),
            (b"\x28\xb5\x2f\xfd", "Zstandard", "unzstd"),
        )
    ),
)
"""First bytes, what such a file is, and the remedy."""

TABLE_FOOTER = bytes.fromhex("57fb808b247547db")
"""Last bytes of a LevelDB table, in which TensorFlow keeps the index of a checkpoint."""
ONNX = range(3, 32)
"""Versions of ONNX's intermediate representation; TensorFlow's saved models start alike, with version 1."""


def refuse_other_file(file: Path, head: bytes) -> None:
    """Refuse a file that is known to be something else than weights that can be read.

    Args:
        file: the file; no zip archive.
        head: its first bytes, 512 or more where it has them.

    Raises:
        WeightsError: always, except for a torch file from before version 1.6; one sentence with the remedy.
    """
    what, remedy = _kind(file, head)
    if what:
        raise WeightsError(f"{file} {what}: {remedy}.")


def _kind(file: Path, head: bytes) -> tuple[str, str]:
    if not head:
        return "is empty", "download or copy it again"
    for start, what, remedy in STARTS:
        if head.startswith(start):
            return what, remedy
    # by checksum, as torch would take such archives too, and unpack them
    if tarfile.is_tarfile(file):
        return "is a tar archive", "unpack it with tar -xf and give the file of weights inside"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        return (
            "is a web page, not weights (a log-in or an error page that was saved under this name)",
            "log in at its source, accept its conditions and download the file itself",
        )
    return _program_file(file, head, text)


def _program_file(file: Path, head: bytes, text: bytes) -> tuple[str, str]:
    if len(head) > 2 and head[0] == 0x08 and head[2] in (0x12, 0x1A, 0x22, 0x2A, 0x32, 0x3A):
        if head[1] in ONNX:
            return "is an ONNX model", "give the weights of PyTorch that it was exported from"
        return "is a saved model of TensorFlow", "give weights of PyTorch: .pth, .pt or .safetensors"
    if _ends_with(file, TABLE_FOOTER) or ".data-0000" in file.name:
        return (
            "is part of a TensorFlow checkpoint",
            "give weights of PyTorch: .pth, .pt or .safetensors, or an AugReg .npz",
        )
    if head[0] == 0x80 or text.startswith((b"(dp", b"ccopy_reg", b"c__")):
        return (
            "is a plain pickle (as detectron2 and joblib write), which may run any program",
            "let whoever made it save the state dict by torch.save(model.state_dict(), file)",
        )
    if text.startswith(b"{") or all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        return (
            f"is a text, not weights (it starts with {head[:40].decode(errors='replace').strip()!r})",
            "download the file itself, not its description or the message of an error",
        )
    return (
        "is no file of weights of a known format, or its start is damaged",
        "give a .pth, .pt or .safetensors file, or copy it again from its source",
    )


def _ends_with(file: Path, end: bytes) -> bool:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - len(end)))
        return stream.read() == end
