"""Encoders by the words of a command line."""

from pathlib import Path

import pytest
import torch

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.evaluation.features.layers import layer_grams, tapped_layers
from monai_ssl_transfer.evaluation.features.sources import read_encoders, short_names
from monai_ssl_transfer.networks.classification import build_classifier
from monai_ssl_transfer.networks.encoders import build_encoder
from monai_ssl_transfer.weights import EncoderCard, save_encoder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("pretraining")
    return save_encoder(build_encoder("resnet18"), folder, EncoderCard("resnet18", channels="rgb", image_size=64))


def test_a_file_a_fine_tuned_run_and_random_weights_are_read_and_fed_alike(pretrained: Path, tmp_path: Path) -> None:
    network = build_classifier("resnet18", classes=3)
    (tmp_path / "run" / "models").mkdir(parents=True)
    model = tmp_path / "run" / "models" / "model.pt"
    torch.save(network.state_dict(), model)
    found = read_encoders([str(pretrained), str(model)], photographs=True)
    assert [one.name for one in found][1:] == ["run", "random resnet18"]
    assert [one.random for one in found] == [False, False, True]
    # the run's file does not tell its size; it is that of the encoder that it is compared with
    assert {(one.settings.image_size, one.settings.channels) for one in found} == {(64, "rgb")}
    inside = {name: value for name, value in network.state_dict().items() if name.startswith("encoder.")}
    own = found[1].encoder.state_dict()
    assert all(torch.equal(own[name.removeprefix("encoder.")], value) for name, value in inside.items())


def test_random_weights_come_from_the_seed_alone_and_leave_the_global_state() -> None:
    state = torch.get_rng_state()
    one, other, third = (read_encoders(["scratch:resnet18"], False, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [each.encoder.state_dict()["conv1.weight"] for each in (one, other, third)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert len(read_encoders(["scratch:resnet18"], False)) == 1  # no second one with random weights is added


def test_random_weights_say_what_tells_them_apart(tmp_path: Path) -> None:
    for pooling in ("mean", "token"):
        encoder = build_encoder("vit_tiny", image_size=32, pooling=pooling)
        card = EncoderCard("vit_tiny", channels="rgb", image_size=32, pooling=pooling)
        save_encoder(encoder, tmp_path / pooling, card)
    found = read_encoders([str(tmp_path / one / "encoder.safetensors") for one in ("mean", "token")], photographs=True)
    assert [one.name for one in found] == ["mean", "token", "random vit_tiny", "random vit_tiny (class token)"]


def test_names_are_as_short_as_tells_them_apart() -> None:
    given = ["/x/a/run/encoder.safetensors", "/x/b/run/models/model.pt", "scratch:vit_tiny", "/x/b/weights.pth"]
    assert short_names(given) == ["a/run", "b/run", "random vit_tiny", "b/weights.pth"]
    assert short_names(given[1:]) == ["run", "random vit_tiny", "weights.pth"]
    assert short_names(["/x/run/model.pt"] * 2) == ["//x/run (1)", "//x/run (2)"]


def test_what_cannot_be_fed_is_refused(pretrained: Path) -> None:
    with pytest.raises(WeightsError, match="no encoder 'resnet19'"):
        read_encoders(["scratch:resnet19"], False)
    with pytest.raises(WeightsError, match="multiple of 16 pixels, not 100: give --image-size 96"):
        read_encoders(["scratch:vit_tiny"], False, image_size=100)
    with pytest.raises(WeightsError, match="1 names to 2 encoders"):
        read_encoders([str(pretrained), "scratch:resnet18"], True, names=["a", "a"])


@pytest.mark.parametrize(("name", "layers", "first"), [("resnet18", 10, "stem"), ("vit_tiny", 14, "patches")])
def test_layers_are_the_stem_every_block_and_the_embedding(name: str, layers: int, first: str) -> None:
    encoder = build_encoder(name, image_size=32).eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), layer_grams(encoder) as found:
        embedding = encoder(images)
    assert len(found) == layers and next(iter(found)) == first and list(found)[-1] == "embedding"
    centred = (embedding - embedding.mean(0)).double()
    assert torch.allclose(found["embedding"], centred @ centred.T, rtol=1e-4, atol=1e-6)
    assert len(tapped_layers(encoder)) == layers - 1
    with torch.no_grad():
        encoder(images * 2)
    assert torch.allclose(found["embedding"], centred @ centred.T, rtol=1e-4, atol=1e-6)  # no longer collected
