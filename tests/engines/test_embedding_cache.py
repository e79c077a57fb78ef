"""Embeddings are kept by content, found again from anywhere, and made again where a file is damaged."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from monai_ssl_transfer.engines.embedding.cache import EmbeddingCache, Features, cache_folder
from monai_ssl_transfer.engines.embedding.features import EncoderFeatures, cached_features
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.networks import build_encoder


def name(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


class Pictures(Dataset):
    """Noise that follows from its number; counts how often one was read."""

    def __init__(self, numbers: list[int], damaged: int = -1) -> None:
        self.numbers, self.damaged, self.read = numbers, damaged, 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> torch.Tensor:
        self.read += 1
        number = self.numbers[position]
        picture = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(number))
        return picture * float("nan") if number == self.damaged else picture


@pytest.fixture(scope="module")
def vit() -> EncoderFeatures:
    torch.manual_seed(0)
    return EncoderFeatures(build_encoder("vit_tiny", image_size=32), "vit_tiny").eval()


def embedded(network: EncoderFeatures, numbers: list[int], cache: EmbeddingCache) -> tuple[Features, int]:
    pictures = Pictures(numbers)
    found = cached_features(network, pictures, [name(one) for one in numbers], cache, batch_size=3)
    return found, pictures.read


def test_only_unknown_images_are_embedded_and_the_order_is_kept(tmp_path: Path, vit: EncoderFeatures):
    cache = EmbeddingCache(tmp_path, {"encoder": 1})
    fresh, read = embedded(vit, [5, 3, 9, 3, 1], cache)
    assert read == 4  # one picture is there twice
    again, read = embedded(vit, [1, 7, 3, 3, 8, 5], EmbeddingCache(tmp_path, {"encoder": 1}))
    assert read == 2
    assert torch.equal(again.vectors[[0, 2, 3, 5]], fresh.vectors[[4, 1, 3, 0]])
    plain, _ = embedded(vit, [1, 7, 3, 3, 8, 5], EmbeddingCache(None, {}))
    torch.testing.assert_close(again.vectors, plain.vectors)
    torch.testing.assert_close(again.blocks, plain.blocks)
    assert embedded(vit, [1, 5], EmbeddingCache(tmp_path, {"encoder": 2}))[1] == 2  # another encoder knows nothing


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_blocks_are_the_tokens_of_the_last_blocks_after_the_norm(pooling: str):
    torch.manual_seed(0)
    encoder = build_encoder("vit_small_dinov2_reg", image_size=28, pooling=pooling).eval()
    images = torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        vectors, blocks = EncoderFeatures(encoder, "vit_small_dinov2_reg")(images)
        layers = encoder.get_intermediate_layers(images, n=4, return_prefix_tokens=True, norm=True)
        assert blocks is not None
        torch.testing.assert_close(vectors, encoder(images))
    for number, (patches, prefix) in enumerate(reversed(layers)):
        torch.testing.assert_close(blocks[:, number, 0], prefix[:, 0])
        torch.testing.assert_close(blocks[:, number, 1], patches.mean(dim=1))


def test_a_resnet_has_its_embedding_alone(tmp_path: Path):
    network = EncoderFeatures(build_encoder("resnet18"), "resnet18").eval()
    for _ in range(2):
        found, _ = embedded(network, [1, 2], EmbeddingCache(tmp_path, {}))
        assert found.blocks is None
        with torch.no_grad():
            expected = network.encoder(torch.stack([Pictures([1, 2])[0], Pictures([1, 2])[1]]))
        torch.testing.assert_close(found.vectors, expected)


@pytest.mark.parametrize("harm", ["flipped", "cut", "empty"])
def test_a_damaged_file_is_named_and_made_again(
    tmp_path: Path, vit: EncoderFeatures, harm: str, caplog: pytest.LogCaptureFixture
):
    cache = EmbeddingCache(tmp_path, {})
    before, _ = embedded(vit, [1, 2, 3], cache)
    assert cache.folder is not None
    (file,) = cache.folder.glob("*.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes({"flipped": bytes(raw), "cut": bytes(raw[:-40]), "empty": b""}[harm])
    with caplog.at_level(logging.WARNING):
        after, read = embedded(vit, [1, 2, 3], cache)
    assert read == 3
    assert str(file) in caplog.text
    torch.testing.assert_close(after.vectors, before.vectors)
    assert embedded(vit, [3, 1], cache)[1] == 0


def test_an_embedding_that_is_not_finite_is_not_kept(tmp_path: Path, vit: EncoderFeatures):
    cache = EmbeddingCache(tmp_path, {})
    with pytest.raises(DataError, match="not finite"):
        cached_features(vit, Pictures([1, 2], damaged=2), [name(1), name(2)], cache)
    assert embedded(vit, [1], cache)[1] == 1


def test_a_full_disk_is_a_sentence(small_disk, vit: EncoderFeatures):
    with pytest.raises(DataError, match=r"free space there.*--cache"):
        embedded(vit, list(range(30)), EmbeddingCache(small_disk("100k") / "cache", {}))


def test_the_folder_follows_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "monai_ssl_transfer" / "embeddings"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("") == Path.home() / ".cache" / "monai_ssl_transfer" / "embeddings"
    assert cache_folder(None) is None
    assert cache_folder("none") is None
    assert cache_folder("here") == Path("here")
