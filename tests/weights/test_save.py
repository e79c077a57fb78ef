"""Saved encoders survive kills and full disks, and say what they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_encoder, build_unet
from monai_ssl_transfer.weights import EncoderCard, read_encoder, save_encoder
from monai_ssl_transfer.weights.save import hash_tensors

CARD = EncoderCard(
    architecture="resnet18",
    in_channels=3,
    channels="windows",
    windows=((40.0, 400.0), (-600.0, 1500.0), (400.0, 1800.0)),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    image_size=160,
    method={"name": "simclr", "temperature": 0.2},
    recipe={"views": [{"scale": [0.2, 1.0]}]},
    data={"slices": 1234},
    versions={"torch": torch.__version__},
    source_hash="ab12",
    licence="CC-BY-4.0",
)


def test_card_comes_back_and_both_copies_agree(tmp_path: Path) -> None:
    file = save_encoder(build_encoder("resnet18"), tmp_path / "new" / "folder", CARD)
    state, card = read_encoder(file)
    assert card.weights_hash == hash_tensors(state)
    assert {**vars(card), "weights_hash": ""} == vars(CARD)
    with safe_open(file, "pt") as reader:
        assert reader.metadata()["card"] == file.with_name("encoder.json").read_text()
    assert sorted(path.name for path in file.parent.iterdir()) == ["encoder.json", "encoder.safetensors"]


def test_unet_is_saved_under_canonical_names(tmp_path: Path) -> None:
    unet = build_unet("resnet18")
    state, _ = read_encoder(save_encoder(unet, tmp_path, CARD))
    assert state.keys() == build_encoder("resnet18").state_dict().keys()
    assert torch.equal(state["conv1.weight"], unet.encoder.encoder.conv1.weight)


def test_hash_sees_every_change() -> None:
    state = {"a": torch.arange(4.0), "b": torch.zeros(2, 2)}
    hashes = {
        hash_tensors(state),
        hash_tensors({**state, "b": torch.zeros(4)}),
        hash_tensors({**state, "b": torch.zeros(2, 2, dtype=torch.int32)}),
        hash_tensors({"a": state["b"], "b": state["a"]}),
        hash_tensors({**state, "a": torch.tensor([0.0, 1.0, 2.0, 3.0000002])}),
    }
    assert len(hashes) == 5
    assert hash_tensors(dict(reversed(state.items()))) == hash_tensors(state)


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (EncoderCard("resnet50"), "resnet50 with 3"),
        (EncoderCard("resnet18", in_channels=1), "with 1 input"),
    ],
)
def test_contradicting_card_is_refused(tmp_path: Path, card: EncoderCard, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        save_encoder(build_encoder("resnet18"), tmp_path, card)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_encoder_is_not_saved(tmp_path: Path, value: float) -> None:
    encoder = build_encoder("resnet18")
    encoder.layer3[0].conv1.weight.data[0, 0, 0, 0] = value
    with pytest.raises(WeightsError, match=r"layer3\.0\.conv1\.weight holds NaN or infinity"):
        save_encoder(encoder, tmp_path, CARD)
    assert list(tmp_path.iterdir()) == []


def test_card_of_another_format_is_refused(tmp_path: Path) -> None:
    entries = json.loads(CARD.to_json())
    for change, said in (({"format": 2}, "another format"), ({"colour": 1}, "colour")):
        with pytest.raises(WeightsError, match=said):
            EncoderCard.from_json(json.dumps(entries | change), "here.json")
    for text in ("{", "[1]", '{"format": 1}'):
        with pytest.raises(WeightsError, match=r"here\.json is not a card"):
            EncoderCard.from_json(text, "here.json")


def test_edited_card_beside_the_weights_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_encoder(build_encoder("resnet18"), tmp_path, CARD)
    _, card = read_encoder(tmp_path)
    assert "differs" not in caplog.text
    beside = tmp_path / "encoder.json"
    beside.write_text(beside.read_text().replace('"image_size": 160', '"image_size": 161'))
    assert read_encoder(tmp_path)[1] == card
    assert "differs from the card inside" in caplog.text


def test_full_disk_is_one_sentence_and_leaves_the_previous_encoder(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("2m")
    (disk / "encoder.safetensors").write_bytes(b"1" * 1_000_000)
    with pytest.raises(WeightsError, match=r"could not be written into .*disk.*No space"):
        save_encoder(build_encoder("resnet18"), disk, CARD)
    assert [(path.name, path.stat().st_size) for path in disk.iterdir()] == [("encoder.safetensors", 1_000_000)]
