"""Files of weights are read by their content, and everything else is refused in one sentence."""

from __future__ import annotations

import argparse
import collections
import datetime
import hashlib
import io
import pathlib
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.weights.reading.files import Checkpoint, read_file

WEIGHT = torch.arange(6.0).reshape(2, 3)
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def saved(content: Any, file: Path, zipped: bool = True, protocol: int = 2) -> Path:
    torch.save(content, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return file


def hashed(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["encoder.pth", "checkpoint.tar", "model.safetensors", "no_suffix", "a.npz"])
@FORMATS
def test_torch_files_are_known_by_their_content(tmp_path: Path, name: str, zipped: bool) -> None:
    content = collections.OrderedDict({"conv1.weight": WEIGHT, "bn1.num_batches_tracked": torch.tensor(3)})
    file = saved({"state_dict": content, "epoch": 5}, tmp_path / name, zipped)
    found = read_file(str(file))
    assert (found.format, found.placeholders, found.metadata) == ("torch" if zipped else "torch before 1.6", (), {})
    assert found.file == file
    assert found.content["epoch"] == 5
    assert torch.equal(found.content["state_dict"]["conv1.weight"], WEIGHT)
    assert found.sha256 == hashed(file)


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.pth"])
def test_safetensors_bring_their_metadata(tmp_path: Path, name: str) -> None:
    save_file({"norm.weight": WEIGHT}, tmp_path / name, metadata={"card": "{}"})
    found = read_file(tmp_path / name)
    assert (found.format, found.metadata, list(found.content)) == ("safetensors", {"card": "{}"}, ["norm.weight"])
    assert torch.equal(found.content["norm.weight"], WEIGHT)
    save_file({"norm.weight": WEIGHT}, tmp_path / name)
    assert read_file(tmp_path / name).metadata == {}


def test_the_hash_is_that_of_a_file_of_many_blocks(tmp_path: Path) -> None:
    file = tmp_path / "big"
    file.write_bytes(bytes(range(256)) * (1 << 15) + b"rest")
    assert Checkpoint(file, "torch", {}).sha256 == hashed(file)


def test_tensors_are_mapped_and_writing_on_them_leaves_the_file(tmp_path: Path) -> None:
    file = saved({"weight": torch.zeros(64, 1024)}, tmp_path / "big.pth")
    before = hashed(file)
    found = read_file(file)
    assert found.content["weight"].untyped_storage().nbytes() >= 64 * 1024 * 4
    found.content["weight"].add_(1)
    assert hashed(file) == before
    assert not read_file(file).content["weight"].any()


def test_the_real_file_from_before_torch_1_6() -> None:
    file = Path(__file__).parents[2].parent / "shared/data/checkpoints/resnet20-12fca82f.th"
    if not file.is_file():
        pytest.skip("needs the shared data")
    found = read_file(file)
    assert found.format == "torch before 1.6"
    assert found.sha256.startswith("12fca82f")
    assert len(found.content["state_dict"]) == 97


class Enumerated:
    """Written as Python 3.11 writes a member of an enumeration."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (datetime.timezone, "utc")


def training_file() -> dict[str, Any]:
    """What training programs keep beside their weights."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    return {
        "model": collections.OrderedDict({"norm.weight": WEIGHT, "norm.bias": nn.Parameter(torch.ones(3))}),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "view": torch.arange(10)[2:8:2],
        "args": argparse.Namespace(arch="vit_small", output_dir=pathlib.Path("out"), epochs=300),
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3),
        "best": np.float64(0.5),
        "classes": np.array([1, 2]),
        "random": np.random.RandomState(0).get_state(),
        "kind": np.dtype("float32"),
        "when": datetime.datetime(2024, 5, 17),
        "mode": Enumerated(),
        "counts": collections.Counter("aab"),
        "grouped": collections.defaultdict(list, {"a": [1]}),
        "recent": collections.deque([1, 2], maxlen=2),
        "names": {"a"},
        "fixed": frozenset({1}),
        "bytes": b"\x00\xff",
        "size": torch.Size([2, 3]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "complex": 1j,
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@FORMATS
def test_foreign_classes_become_inert_values(tmp_path: Path, protocol: int, zipped: bool) -> None:
    content = training_file()
    found = read_file(saved(content, tmp_path / "training.pth", zipped, protocol))
    assert found.format == ("torch" if zipped else "torch before 1.6") + " with foreign classes"
    assert {"argparse.Namespace", "builtins.getattr", "torch.optim.lr_scheduler.StepLR"} <= set(found.placeholders)
    assert not any(name.startswith(("torch._utils", "collections")) for name in found.placeholders)
    assert found.content.keys() == content.keys()
    assert torch.equal(found.content["model"]["norm.weight"], WEIGHT)
    assert torch.equal(found.content["model"]["norm.bias"], torch.ones(3))
    assert found.content["half"].dtype == torch.bfloat16
    assert found.content["view"].tolist() == [2, 4, 6]
    args = found.content["args"]
    assert type(args).__name__ == "Namespace"
    assert not isinstance(args, argparse.Namespace)
    assert (args.values["arch"], args.values["epochs"]) == ("vit_small", 300)
    assert repr(args) == "<argparse.Namespace, not loaded>"
    assert repr(args.values["output_dir"]) == f"<pathlib.{type(pathlib.Path()).__name__}, not loaded>"
    assert found.content["counts"] == {"a": 2, "b": 1}
    assert found.content["grouped"] == {"a": [1]}
    assert list(found.content["recent"]) == [1, 2]
    assert list(found.content["names"]) == ["a"]
    assert found.content["bytes"] == b"\x00\xff"
    assert found.content["dtype"] is torch.float16
    assert found.content["optimizer"]["param_groups"][0]["lr"] == 0.1


@FORMATS
def test_foreign_mappings_and_lists_keep_their_entries(tmp_path: Path, zipped: bool) -> None:
    omegaconf = pytest.importorskip("omegaconf")
    parsing = pytest.importorskip("pytorch_lightning.utilities.parsing")
    config = omegaconf.OmegaConf.create({"lr": 0.1, "sizes": [1, 2]})
    content = {"state_dict": {"w": WEIGHT}, "hyper_parameters": parsing.AttributeDict(lr=0.1), "cfg": config}
    content["callbacks"] = {parsing.AttributeDict: {"best": 0.5}}  # old Lightning has classes as keys
    found = read_file(saved(content, tmp_path / "lightning.ckpt", zipped))
    assert {
        "pytorch_lightning.utilities.parsing.AttributeDict",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
    } <= set(found.placeholders)
    assert found.content["hyper_parameters"].values == {"lr": 0.1}
    assert list(found.content["callbacks"].values()) == [{"best": 0.5}]
    entries = found.content["cfg"].values["_content"]
    assert entries["lr"].values["_val"] == 0.1
    assert [entry.values["_val"] for entry in entries["sizes"].values["_content"]] == [1, 2]


def opcodes(text: bytes, file: Path) -> Path:
    """A torch file whose pickle is written by hand."""
    saved({}, file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, text if name.endswith("data.pkl") else data)
    return file


def test_classes_of_programs_that_are_not_installed_are_read(tmp_path: Path) -> None:
    # a list and a mapping of foreign classes, filled entry by entry, as protocols 2 and 0 write them
    text = b"\x80\x02}(X\x01\x00\x00\x00acyacs.config\nNothing\n)\x81K\x01a(K\x02K\x03e"
    text += b"X\x01\x00\x00\x00bccopy_reg\n_reconstructor\n(cyacs.config\nOther\nc__builtin__\ndict\n}tR"
    text += b"X\x01\x00\x00\x00kK\x05su."
    found = read_file(opcodes(text, tmp_path / "a.pth"))
    assert found.placeholders == ("yacs.config.Nothing", "yacs.config.Other")
    assert found.content["a"].entries == [1, 2, 3]
    assert found.content["b"].values == {"k": 5}


class Call:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def calls(mark: Path) -> dict[str, Any]:
    import os
    import runpy
    import shutil
    import subprocess

    text = f"__import__('pathlib').Path({str(mark)!r}).write_text('')"
    return {
        f"{os.system.__module__}.system": Call(os.system, f"touch {mark}"),
        "builtins.eval": Call(eval, text),
        "builtins.exec": Call(exec, text),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(mark)]),
        "_io.open|io.open|builtins.open": Call(open, str(mark), "w"),
        "shutil.copyfile": Call(shutil.copyfile, __file__, str(mark)),
        "runpy.run_path": Call(runpy.run_path, str(mark)),
        "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, b"x"),
        "torch.hub.load_state_dict_from_url": Call(torch.hub.load_state_dict_from_url, "http://localhost/x"),
        "builtins.getattr|builtins.__import__": Call(getattr, Call(__import__, "os"), "system"),
    }


@pytest.mark.parametrize("name", calls(Path("mark")))
@pytest.mark.parametrize("protocol", [2, 4])
@FORMATS
def test_no_program_in_a_pickle_is_run(tmp_path: Path, name: str, protocol: int, zipped: bool) -> None:
    mark = tmp_path / "mark"
    content = {"args": argparse.Namespace(), "state_dict": {"w": WEIGHT}, "more": calls(mark)[name]}
    file = saved(content, tmp_path / "bad.pth", zipped, protocol)
    with pytest.raises(WeightsError) as caught:
        read_file(file)
    assert not mark.exists()
    assert any(f"{file} asks for {part}, which weights do not need" in str(caught.value) for part in name.split("|"))
    assert "\n" not in str(caught.value)
    # the file does what it was made for: the normal reader runs it
    if name.startswith(("builtins.e", "subprocess", "shutil", "_io")) or name.endswith(".system"):
        process = torch.load(file, weights_only=False)["more"]
        if hasattr(process, "wait"):
            process.wait()
        assert mark.exists()


@FORMATS
def test_programs_hidden_behind_what_is_rebuilt(tmp_path: Path, zipped: bool) -> None:
    hidden: list[Any] = [
        (collections.OrderedDict, (), {"keys": Call(eval, "1")}),
        (torch._utils._rebuild_parameter, (WEIGHT, False, collections.OrderedDict()), {"grad": Call(eval, "1")}),
        (torch._tensor._rebuild_from_type_v2, (exec, torch.Tensor, ("ran",), None)),
    ]
    for number, reduced in enumerate(hidden):

        class Hidden:
            def __reduce__(self, reduced: Any = reduced) -> Any:
                return reduced

        content = {"args": argparse.Namespace(), "more": Hidden()}
        file = saved(content, tmp_path / f"{number}.pth", zipped)
        with pytest.raises(WeightsError, match=r"asks for builtins\.(eval|exec), which"):
            read_file(file)


@pytest.mark.parametrize(
    "target", [b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"cargparse\nNamespace\n"]
)
def test_a_pickle_cannot_write_onto_functions_and_classes(tmp_path: Path, target: bytes) -> None:
    # pushes a function or a class and builds {"__doc__": "changed"} onto it, as attributes and as slots
    for state in (
        b"}X\x07\x00\x00\x00__doc__X\x07\x00\x00\x00changeds",
        b"N}X\x07\x00\x00\x00__doc__X\x07\x00\x00\x00changeds\x86",
    ):
        file = opcodes(
            b"\x80\x02}X\x01\x00\x00\x00a" + b"cargparse\nNamespace\n0" + target + state + b"bs.", tmp_path / "a.pth"
        )
        with pytest.raises(WeightsError, match=r"a\.pth is cut off or damaged"):
            read_file(file)
    assert torch._utils._rebuild_tensor_v2.__doc__ != "changed"
    assert collections.OrderedDict.__doc__ != "changed"


def test_whole_networks_are_refused_by_the_name_of_their_class(tmp_path: Path) -> None:
    for zipped in (True, False):
        file = saved({"model": nn.Linear(2, 2)}, tmp_path / "network.pth", zipped)
        with pytest.raises(WeightsError, match=r"asks for torch\.nn\.modules\.linear\.Linear, .*save the state dict"):
            read_file(file)


def test_torchscript_is_not_run(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "model.ts")
    with pytest.raises(WeightsError, match=r"model\.ts is a program of TorchScript.*state_dict\(\)"):
        read_file(tmp_path / "model.ts")


def test_what_is_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds a list, not tensors under names"):
        read_file(saved([WEIGHT], tmp_path / "list.pth"))


@FORMATS
def test_cut_files_are_refused_at_any_length(tmp_path: Path, zipped: bool) -> None:
    whole = saved(
        {"state_dict": {"w": WEIGHT}, "args": argparse.Namespace()}, tmp_path / "whole.pth", zipped
    ).read_bytes()
    file = tmp_path / "cut.pth"
    for length in {1, 3, 10, 30, *range(64, len(whole), max(1, len(whole) // 40)), len(whole) - 1}:
        file.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"cut\.pth ") as caught:
            read_file(file)
        assert "\n" not in str(caught.value)


@FORMATS
def test_flipped_bytes_end_in_one_sentence_or_in_values(tmp_path: Path, zipped: bool) -> None:
    whole = saved(training_file(), tmp_path / "whole.pth", zipped).read_bytes()
    generator, file, refused = random.Random(0), tmp_path / "flipped.pth", 0
    for _ in range(100):
        changed = bytearray(whole)
        for _ in range(generator.choice([1, 2, 5, 20])):
            changed[generator.randrange(min(len(whole), 4000))] = generator.randrange(256)
        file.write_bytes(changed)
        try:
            read_file(file)
        except WeightsError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 20 < refused < 100


def test_a_damaged_table_of_contents(tmp_path: Path) -> None:
    file = saved({"w": WEIGHT}, tmp_path / "a.pth")
    whole = bytearray(file.read_bytes())
    whole[whole.index(b"PK\x01\x02") + 6] = 200  # the version of zip that is needed to unpack
    file.write_bytes(whole)
    with pytest.raises(WeightsError, match=r"a\.pth is cut off or damaged \(its table of contents"):
        read_file(file)


def test_a_container_of_a_legacy_file_is_not_compared_with_any_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch would read the source of the class, and write a patch where the class asks for it
    monkeypatch.chdir(tmp_path)
    file = saved({}, tmp_path / "whole.pth", zipped=False)
    body = b"\x80\x02}X\x01\x00\x00\x00a(X\x06\x00\x00\x00modulecargparse\nPlaceholder\n"
    body += b"X\x04\x00\x00\x00a.pyX\x06\x00\x00\x00sourcetQs."
    whole = file.read_bytes()
    start = whole.index(pickle.dumps({}, protocol=2), 60)
    file.write_bytes(whole[:start] + body + whole[start + len(pickle.dumps({}, protocol=2)) :])
    with pytest.raises(WeightsError, match=r"whole\.pth is cut off or damaged"):
        read_file(file)
    assert [entry.name for entry in tmp_path.iterdir()] == ["whole.pth"]


def test_cut_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"w": WEIGHT}, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for length in (1, 7, 8, 9, 20, len(whole) - 1):
        (tmp_path / "a.safetensors").write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"a\.safetensors "):
            read_file(tmp_path / "a.safetensors")


def tar_of_a_folder() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("weights/encoder.pth")
        archive.addfile(entry, io.BytesIO())
    return buffer.getvalue()


def zip_of_a_folder() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights/encoder.pth", b"x")
    return buffer.getvalue()


OTHERS: list[tuple[bytes, str]] = [
    (b"", "is empty: download or copy it again"),
    (b"<!DOCTYPE html>\n<html><head><title>Log in</title>", "is a web page.*accept its conditions"),
    (b"\n\n<html><body>404", "is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12\n", "pointer of git-lfs.*git lfs pull"),
    (tar_of_a_folder(), "is a tar archive: unpack it"),
    (zip_of_a_folder(), r"is a zip archive of other files \(weights/encoder\.pth\): unpack it"),
    (b"PK\x05\x06" + bytes(18), r"is a zip archive of other files \(none\)"),
    (b"\x1f\x8b\x08\x00" + bytes(20), r"is compressed \(gzip\)"),
    (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5 file"),
    (b'model_checkpoint_path: "model.ckpt-1"\n', "TensorFlow checkpoints"),
    (bytes(40) + bytes.fromhex("57fb808b247547db"), "part of a TensorFlow checkpoint"),
    (b"\x08\x01\x12\xff" + bytes(40), "saved model of TensorFlow"),
    (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(40), "is an ONNX model"),
    (pickle.dumps({"model": {"w": np.ones(2)}}), r"is a plain pickle.*torch\.save"),
    (pickle.dumps({"model": [1]}, protocol=0), "is a plain pickle"),
    (b'{"error": "Access to this model is restricted"}', "is a text, not weights.*Access to"),
    (b"Not Found", r"is a text, not weights \(it starts with 'Not Found'\)"),
    (b"\xff\xd8\xff\xe0" + bytes(40), "is no file of weights of a known format"),
]


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.npz", "model.tar"])
def test_other_files_are_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    for content, reason in OTHERS:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=reason) as caught:
            read_file(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(str(tmp_path / name))
        assert ": " in message
        assert message.endswith(".")
        assert "\n" not in message


def test_the_real_onnx_file_is_recognised(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [])
    onnx.save(onnx.helper.make_model(graph, producer_name="pytorch"), tmp_path / "model.bin")
    with pytest.raises(WeightsError, match="is an ONNX model"):
        read_file(tmp_path / "model.bin")


def test_a_tar_archive_that_looks_like_a_torch_file(tmp_path: Path) -> None:
    # torch would unpack it; its name is the number that torch files start with
    start = saved({}, tmp_path / "a.pth", zipped=False).read_bytes()[:16]
    header = bytearray(512)
    header[: len(start)] = start
    header[100:108], header[124:136], header[156:157] = b"0000644\0", b"00000000000\0", b"0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    (tmp_path / "tar.pth").write_bytes(bytes(header) + bytes(1024))
    assert tarfile.is_tarfile(tmp_path / "tar.pth")
    with pytest.raises(WeightsError, match="is a tar archive"):
        read_file(tmp_path / "tar.pth")


def test_a_folder_and_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is a folder: give the path"):
        read_file(tmp_path)
    with pytest.raises(WeightsError, match="does not exist: give the path"):
        read_file(tmp_path / "none.pth")
