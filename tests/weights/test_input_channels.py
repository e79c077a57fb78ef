"""An encoder's card against what a bundle feeds: transfer is allowed, the same kind in another form is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.engines.embedding.encoder_settings import encoder_settings
from monai_ssl_transfer.engines.transfer.fine_tuning import initialise_encoder
from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.networks import build_classifier, build_encoder
from monai_ssl_transfer.views.windows import channel_windows, normalisation
from monai_ssl_transfer.weights import EncoderCard, load_encoder_weights, read_encoder, save_encoder, starting_from

ROOT = Path(__file__).resolve().parents[2]


def encoder_file(folder: Path, channels: str, named: bool = True, **card: object) -> Path:
    """An encoder of this package, pretrained on channels that its card names or not."""
    mean, std = normalisation(channels)
    windows = tuple((window.level, window.width) for window in channel_windows(channels))
    facts = {"channels": channels * named, "mean": mean, "std": std, "windows": windows} | card
    return save_encoder(build_encoder("resnet18"), folder, EncoderCard("resnet18", **facts))


def doubted(file: Path, channels: str, tmp_path: Path) -> str:
    """The warnings on the input in the record of a run that starts from a file."""
    initialise_encoder(build_classifier("resnet18", classes=2), file, tmp_path / "run", channels)
    record = json.loads((tmp_path / "run" / "encoder_load.json").read_text())
    return " ".join(line for line in record["report"]["warnings"] if "pretrained on" in line)


@pytest.mark.parametrize("channels", ["windows", "neighbours", "rgb"])
def test_the_same_channels_are_loaded_without_a_word(tmp_path: Path, channels: str) -> None:
    assert doubted(encoder_file(tmp_path, channels), channels, tmp_path) == ""


@pytest.mark.parametrize(("pretrained", "fed"), [("neighbours", "windows"), ("windows", "neighbours")])
def test_another_form_of_ct_is_refused(tmp_path: Path, pretrained: str, fed: str) -> None:
    file = encoder_file(tmp_path, pretrained)
    with pytest.raises(WeightsError, match=f"channels {pretrained} but gets {fed} here: run with --channels"):
        initialise_encoder(build_classifier("resnet18", classes=2), file, None, fed)
    with pytest.raises(WeightsError, match=f"channels {pretrained} but gets {fed}"):
        starting_from(build_encoder("resnet18"), file, None, fed)


def test_other_windows_are_refused(tmp_path: Path) -> None:
    file = encoder_file(tmp_path, "windows", windows=((40, 400), (-600, 1500), (300, 1500)))
    with pytest.raises(WeightsError, match=r"HU windows \(\(40, 400\).*use the version that made the encoder"):
        initialise_encoder(build_classifier("resnet18", classes=2), file, None, "windows")


@pytest.mark.parametrize(("pretrained", "fed"), [("windows", "rgb"), ("neighbours", "rgb"), ("rgb", "windows")])
def test_transfer_between_kinds_of_images_is_allowed_with_a_warning(
    tmp_path: Path, pretrained: str, fed: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = encoder_file(tmp_path, pretrained)
    said = f"it was pretrained on {pretrained} and gets {fed} here, another kind of images"
    assert doubted(file, fed, tmp_path) == said
    assert f"WARNING: {said}" in caplog.text
    starting_from(build_encoder("resnet18"), file, None, fed)


def test_another_scale_is_a_warning(tmp_path: Path) -> None:
    file = encoder_file(tmp_path, "rgb", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert "mean 0.5, 0.5, 0.5 and SD 0.5" in doubted(file, "rgb", tmp_path)
    assert "0.485, 0.456, 0.406" in doubted(file, "rgb", tmp_path)
    unknown = encoder_file(tmp_path / "known", "rgb", named=False)
    assert doubted(unknown, "rgb", tmp_path) == ""
    assert "0.5, 0.5, 0.5 and 0.25" in doubted(unknown, "windows", tmp_path)


@pytest.mark.parametrize("fed", ["windows", "neighbours", "rgb"])
def test_a_file_that_says_nothing_is_loaded_everywhere_with_a_note(tmp_path: Path, fed: str) -> None:
    torch.save(build_encoder("resnet18").state_dict(), tmp_path / "imagenet.pth")
    assert doubted(tmp_path / "imagenet.pth", fed, tmp_path) == ""
    assert f"what its channels are; they are {fed} here" in (tmp_path / "run" / "encoder_load.txt").read_text()


def test_an_encoder_of_bgr_images_is_refused_where_rgb_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, file = encoder_file(tmp_path / "rgb", "rgb"), tmp_path / "bgr.safetensors"
    assert main(["weights", "convert", str(given), "--to", "timm", "--out", str(file), "--bgr"]) == 0
    card = read_encoder(file)[1]
    assert (card.channels, card.mean) == ("bgr", (0.406, 0.456, 0.485))
    for fed in ("", "rgb", "windows"):
        with pytest.raises(WeightsError, match=r"was converted to BGR .*convert --bgr"):
            initialise_encoder(build_classifier("resnet18", classes=2), file, None, fed)
    with pytest.raises(WeightsError, match="was converted to BGR"):
        encoder_settings(file, "resnet18", "rgb", 224, "token")
    report = load_encoder_weights(build_encoder("resnet18"), file, channels="bgr")
    assert any("BGR instead of RGB" in note for note in report.notes)
    assert not [line for line in report.warnings if "pretrained on" in line]
    capsys.readouterr()
    assert main(["weights", "inspect", str(file)]) == 0
    assert "BGR instead of RGB" in capsys.readouterr().out
    back = tmp_path / "back.safetensors"
    assert main(["weights", "convert", str(file), "--to", "timm", "--out", str(back), "--bgr"]) == 0
    assert read_encoder(back)[1].channels == "rgb"
    before, after = read_encoder(given)[0], read_encoder(back)[0]
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("config", sorted(ROOT.glob("bundles/*/configs/*train.json")), ids=lambda file: file.parts[-3])
def test_every_bundle_says_what_it_feeds(config: Path) -> None:
    content = json.loads(config.read_text())
    if "ssl" in config.parts[-3]:
        assert content.get("encoder", {}).get("channels", "@channels") == "@channels"
        return
    fed = "@channels" if config.parts[-3].startswith(("ct_", "volume_")) else "'rgb'"
    assert f"$initialise_encoder(@network_def, @encoder_weights, @output_dir, {fed})" in content["initialize"]
