"""The strategies over a real datastore: what they choose, when they refuse, and over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("monailabel", reason="needs the label extra")

import requests
from tiny_label import LabelServer

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.label.datastore import SafeDatastore
from monai_ssl_transfer.label.embeddings import DatastoreEmbeddings
from monai_ssl_transfer.label.scoring import score_key
from monai_ssl_transfer.label.selection import density, spread, typical_first, unit
from monai_ssl_transfer.label.strategies import make_strategies
from monai_ssl_transfer.networks import build_encoder
from monai_ssl_transfer.weights import EncoderCard, save_encoder

KEY = score_key("polyps")
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
COUNTS = {"red": 7, "green": 6, "blue": 5}


def paint(file: Path, colour: str, seed: int) -> None:
    """A picture of one colour with a little noise."""
    noise = np.random.default_rng(seed).integers(-12, 13, (24, 24, 3))
    Image.fromarray((np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8)).save(file)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    card = EncoderCard("resnet18", image_size=32)
    return save_encoder(build_encoder("resnet18"), tmp_path_factory.mktemp("encoder"), card)


@pytest.fixture
def store(tmp_path: Path) -> SafeDatastore:
    """Pictures of three colours, red_0 to blue_4."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for number, (colour, count) in enumerate(COUNTS.items()):
        for place in range(count):
            paint(folder / f"{colour}_{place}.png", colour, 100 * number + place)
    return SafeDatastore(str(folder))


@pytest.fixture
def embeddings(store: SafeDatastore, encoder: Path, tmp_path: Path) -> Any:
    found = DatastoreEmbeddings(store, encoder, tmp_path / "embeddings")
    found.start()
    assert found.wait(60)
    yield found
    found.stop()


@pytest.fixture
def ask(store: SafeDatastore, embeddings: DatastoreEmbeddings) -> Callable[..., dict[str, Any]]:
    """Ask a strategy and record that the image was given, as the endpoint does."""
    strategies = make_strategies(embeddings, KEY)

    def sample(strategy: str, served: bool = True, **request: Any) -> dict[str, Any]:
        found = strategies[strategy]({"strategy": strategy, **request}, store)
        if found is not None and served:
            store.update_image_info(found["id"], {"strategy": {strategy: {"ts": int(time.time())}}})
        return found

    return sample


def label(store: SafeDatastore, image_id: str, folder: Path) -> None:
    mask = folder / f"{image_id}.png"
    Image.new("L", (24, 24)).save(mask)
    store.save_label(image_id, str(mask), "final", {})


def colours(found: list[dict[str, Any]]) -> list[str]:
    return [one["id"].partition("_")[0] for one in found]


def test_diverse_gives_every_group_before_any_twice(
    store: SafeDatastore, ask: Callable[..., Any], embeddings: DatastoreEmbeddings, tmp_path: Path
) -> None:
    first = ask("ssl_diverse", served=False)
    vectors = unit(embeddings.vectors(sorted(store.list_images())))
    assert first["id"] == sorted(store.list_images())[typical_first(vectors)[0]]
    assert (first["embedded"], first["not_embedded"]) == (18, 0)
    label(store, "red_0", tmp_path)
    assert sorted(colours([ask("ssl_diverse"), ask("ssl_diverse")])) == ["blue", "green"]


def test_coreset_is_asked_for_by_name(
    store: SafeDatastore, ask: Callable[..., Any], embeddings: DatastoreEmbeddings
) -> None:
    names = sorted(store.list_images())
    vectors = unit(embeddings.vectors(names))
    chosen = [ask("ssl_diverse", method="coreset")["id"] for _ in range(4)]
    assert chosen == [names[row] for row in spread(vectors, count=4)]
    with pytest.raises(DataError, match="typiclust or coreset"):
        ask("ssl_diverse", method="best")
    with pytest.raises(DataError, match="whole number"):
        ask("ssl_diverse", seed="one")


@pytest.mark.parametrize("strategy", ["ssl_diverse", "ssl_similar"])
def test_no_image_is_given_twice_until_all_were_and_none_when_all_are_labelled(
    store: SafeDatastore, ask: Callable[..., Any], tmp_path: Path, strategy: str
) -> None:
    label(store, "red_0", tmp_path)
    chosen = [ask(strategy)["id"] for _ in range(17)]
    assert sorted(chosen) == sorted(set(store.list_images()) - {"red_0"})
    assert ask(strategy)["id"] in chosen
    for one in chosen:
        label(store, one, tmp_path)
    assert ask(strategy) is None


def test_uncertain_is_the_product_of_score_and_density(
    store: SafeDatastore, ask: Callable[..., Any], embeddings: DatastoreEmbeddings, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="begin with ssl_diverse"):
        ask("ssl_uncertain")
    names = sorted(store.list_images())
    crowding = dict(zip(names, density(unit(embeddings.vectors(names))), strict=True))
    scores = {one: 0.1 + 0.01 * place for place, one in enumerate(names[:12])}
    for one, value in scores.items():
        store.update_image_info(one, {KEY: value})
    product = {one: value * crowding[one] for one, value in scores.items()}
    found = ask("ssl_uncertain", served=False)
    assert found["id"] == max(product, key=product.__getitem__)
    assert (found["not_scored"], found["uncertainty"]) == (6, pytest.approx(scores[found["id"]]))
    assert ask("ssl_uncertain", beta=0, served=False)["id"] == names[11]
    label(store, found["id"], tmp_path)
    assert ask("ssl_uncertain")["id"] != found["id"]
    with pytest.raises(DataError, match="give a number"):
        ask("ssl_uncertain", beta="much")


def test_uncertain_goes_by_the_only_scores_there_are_and_asks_which_of_several(
    store: SafeDatastore, embeddings: DatastoreEmbeddings
) -> None:
    strategy = make_strategies(embeddings, "epistemic_entropy")["ssl_uncertain"]
    store.update_image_info("red_1", {score_key("liver"): 0.5})
    assert strategy({"strategy": "ssl_uncertain"}, store)["id"] == "red_1"
    store.update_image_info("red_2", {score_key("polyps"): 0.5})
    with pytest.raises(DataError, match="one of liver, polyps"):
        strategy({"strategy": "ssl_uncertain"}, store)
    assert strategy({"strategy": "ssl_uncertain", "model": "polyps"}, store)["id"] == "red_2"


def test_similar_gives_more_like_the_one_named_or_labelled_last(
    store: SafeDatastore, ask: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="nothing is labelled"):
        ask("ssl_similar")
    assert colours([ask("ssl_similar", image="blue_0") for _ in range(4)]) == ["blue"] * 4
    label(store, "red_3", tmp_path)
    store.update_label_info("red_3", "final", {"ts": int(time.time()) - 100})
    label(store, "green_2", tmp_path)
    found = ask("ssl_similar")
    assert (found["like"], colours([found])) == ("green_2", ["green"])
    with pytest.raises(DataError, match="no image 'nobody'"):
        ask("ssl_similar", image="nobody")


def test_an_image_given_yesterday_comes_again(store: SafeDatastore, ask: Callable[..., Any]) -> None:
    first = ask("ssl_similar", image="red_0")["id"]
    assert ask("ssl_similar", image="red_0", served=False)["id"] != first
    store.update_image_info(first, {"strategy": {"ssl_similar": {"ts": int(time.time()) - 25 * 3600}}})
    assert ask("ssl_similar", image="red_0")["id"] == first


def test_before_the_embeddings_are_there_the_reason_is_told(
    store: SafeDatastore, encoder: Path, tmp_path: Path
) -> None:
    waiting = DatastoreEmbeddings(store, encoder, tmp_path / "embeddings")
    with pytest.raises(DataError, match="ask again"):
        make_strategies(waiting, KEY)["ssl_diverse"]({"strategy": "ssl_diverse"}, store)
    without = DatastoreEmbeddings(store, None, tmp_path / "app" / "embeddings")
    without.start()
    assert without.wait(60)
    with pytest.raises(DataError, match="start the server with --encoder"):
        make_strategies(without, KEY)["ssl_diverse"]({"strategy": "ssl_diverse"}, store)
    without.stop()


def test_the_server_gives_images_and_answers_4xx_with_a_sentence(frames_server: LabelServer) -> None:
    url = f"{frames_server.url}/activelearning"
    for _ in range(120):
        status = requests.get(f"{frames_server.url}/info/", timeout=60).json()["embeddings"]
        if status["done"] == status["total"] > 0:
            break
        time.sleep(0.5)
    assert status["done"] == status["total"], status
    images = requests.get(f"{frames_server.url}/datastore/?output=all", timeout=60).json()["objects"]
    found = requests.post(f"{url}/ssl_diverse", json={}, timeout=60)
    assert found.status_code == 200, found.text
    assert found.json()["id"] in images
    other = frames_server.client.next_sample("ssl_diverse", {"method": "coreset"})
    assert other["id"] != found.json()["id"]
    like = requests.post(f"{url}/ssl_similar", json={"image": "frame_0"}, timeout=60)
    assert like.json()["like"] == "frame_0"
    for strategy, params, reason in (
        ("ssl_similar", {"image": "../../etc/passwd"}, "no image"),
        ("ssl_diverse", {"method": "best"}, "typiclust or coreset"),
    ):
        answer = requests.post(f"{url}/{strategy}", json=params, timeout=60)
        assert 400 <= answer.status_code < 500, answer.text
        assert reason in answer.json()["detail"]
