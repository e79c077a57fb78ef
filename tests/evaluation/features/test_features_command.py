"""`ssl-transfer features` from a store to its files, and the choice of images."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_ssl_transfer.cli import main
from monai_ssl_transfer.data.folder_store import StoredImages
from monai_ssl_transfer.data.store import SeriesEntry, SliceStore
from monai_ssl_transfer.data.store_frames import encode_slice
from monai_ssl_transfer.data.store_writer import SliceStoreWriter
from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.features.images import choose_images, draw_evenly, open_images
from monai_ssl_transfer.evaluation.features.neighbours import nearest_of_others
from monai_ssl_transfer.evaluation.features.passes import whole_images
from monai_ssl_transfer.evaluation.features.sources import read_encoders
from monai_ssl_transfer.networks.encoders import build_encoder
from monai_ssl_transfer.weights import EncoderCard, save_encoder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight patients with two slices each; a disc whose size is the patient's, in one of two body parts."""
    folder, rng = tmp_path_factory.mktemp("features") / "store", np.random.default_rng(0)
    grid = np.hypot(*np.meshgrid(np.arange(32) - 15.5, np.arange(32) - 15.5))
    with SliceStoreWriter(folder) as writer:
        for patient in range(8):
            entry = SeriesEntry(
                f"{patient:032x}", f"{90 + patient:032x}", "nifti", 5.0, False, tuple(np.eye(4).ravel())
            )
            hu = np.where(grid < 5 + patient, 40 + 60 * (patient % 2), -1000) + rng.normal(0, 10, (2, 32, 32))
            slices = [
                encode_slice(one.astype(np.int16), position=5.0 * z, spacing=(1.0, 1.0), body_part=patient % 2)
                for z, one in enumerate(hu)
            ]
            writer.append(entry, slices)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    windows = ((40.0, 400.0), (-600.0, 1500.0), (400.0, 1800.0))
    card = EncoderCard("resnet18", channels="windows", windows=windows, image_size=32)
    return save_encoder(build_encoder("resnet18"), tmp_path_factory.mktemp("pretraining"), card)


@pytest.fixture(scope="module")
def report(store: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    given = ["--encoders", str(encoder), "--data", str(store), "--out", str(out), "--neighbours", "3"]
    assert main(["features", *given, "--names", "mine", "--planes", "PCA", "--batch-size", "8"]) == 0
    return out


class Page(HTMLParser):
    """What a page shows and asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.words = ""
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_needs_no_network_and_shows_every_part(report: Path) -> None:
    page = Page()
    page.feed((report / "features.html").read_text(encoding="utf-8"))
    assert page.links and all(link.startswith(("#", "data:image/jpeg;base64,")) for link in page.links)
    assert "script" not in page.tags and "link" not in page.tags
    for words in ("layer by layer", "Maps of the images", "Which images look alike", "tell about an image"):
        assert words in page.words
    assert "16 CT slices; 8 patients; classes: body part" in page.words
    assert "Only 8 patients: intervals over them are too narrow to be believed." in page.words
    # eight images asked for, each with three neighbours, for the encoder and for random weights
    assert page.tags.count("img") == 8 * 4 * 2


def test_the_numbers_are_those_of_the_features(report: Path, store: Path, encoder: Path) -> None:
    found = json.loads((report / "features.json").read_text())
    mine, random = found["encoders"]
    assert (mine["name"], mine["random"], random["name"], random["random"]) == ("mine", False, "random resnet18", True)
    chosen = choose_images(StoredImages(SliceStore(store)), 0)
    own = read_encoders([str(encoder)], False)[0]
    pixels = [{"image": torch.from_numpy(chosen.store.read(number)[None])} for number in chosen.numbers.tolist()]
    with torch.no_grad():
        vectors = own.encoder(whole_images(own, pixels)).numpy()
    centred = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False).astype(float)
    shares = centred[:15] / centred[:15].sum()
    assert mine["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)
    near = nearest_of_others(vectors, chosen.groups, 3)[0]
    same = np.mean([[chosen.labels[j] == chosen.labels[i] for j in near[i]] for i in range(16)])
    assert mine["neighbours_of_the_same_class"]["value"] == pytest.approx(same, abs=0.03)
    assert mine["neighbours_of_the_same_class_by_chance"] == pytest.approx(3 / 7)
    assert set(mine["properties"]) >= {"body_area", "mean", "symmetry"} and "pixel_size" not in mine["properties"]
    more = mine["properties"]["body_area"]
    wanted = more["r2"]["value"] - random["properties"]["body_area"]["r2"]["value"]
    assert more["beyond_random"]["value"] == pytest.approx(wanted)
    assert any("pixel_size" in note for note in found["notes"])


def test_tables_have_a_row_for_everything(report: Path) -> None:
    tables = {name: list(csv.DictReader((report / f"{name}.csv").open())) for name in ("cka", "points", "neighbours")}
    assert len(tables["cka"]) == 10 * 10 and len(tables["points"]) == 2 * 16 and len(tables["neighbours"]) == 2 * 16 * 3
    assert all(-0.5 < float(row["cka"]) <= 1.001 for row in tables["cka"])
    assert {row["class"] for row in tables["points"]} == {"head_neck", "thorax"}
    measures = {row["measure"] for row in csv.DictReader((report / "features.csv").open())}
    assert {"effective_rank", "silhouette", "r2_body_area", "r2_body_area_beyond_random"} <= measures


def test_images_are_drawn_evenly_from_patients() -> None:
    patients = np.repeat([0, 1, 2], [50, 3, 20])
    drawn = draw_evenly(patients, 21, np.random.default_rng(0))
    assert np.bincount(patients[drawn]).tolist() == [9, 3, 9] and len(set(drawn.tolist())) == 21
    assert sorted(draw_evenly(patients, 0, np.random.default_rng(0)).tolist()) == list(range(73))


def test_classes_come_from_a_table_by_series_or_are_refused(store: Path, tmp_path: Path) -> None:
    images = StoredImages(SliceStore(store))
    table = tmp_path / "classes.csv"
    table.write_text(f"series,class\n{0:032x},small\n{7:032x},large\n")
    chosen = choose_images(images, 0, str(table))
    assert sorted(chosen.labels) == [""] * 12 + ["large"] * 2 + ["small"] * 2
    assert choose_images(images, 0, "none").labels == ()
    table.write_text("series,class\nelsewhere,small\n")
    with pytest.raises(DataError, match="names none of the images"):
        choose_images(images, 0, str(table))
    with pytest.raises(DataError, match="fewer than two classes"):
        choose_images(images, 0, "class")
    with pytest.raises(DataError, match="does not know the names of its files"):
        choose_images(images, 0, "folder")
    with pytest.raises(DataError, match="cannot be read as a table"):
        choose_images(images, 0, "body-part")


def test_folders_of_both_kinds_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_images(tmp_path / "nothing", tmp_path)
    for name in ("a.jpg", "b.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="--pixels hu or --pixels rgb"):
        open_images(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("given", ["nowhere/encoder.safetensors", "scratch:resnet19"])
def test_a_missing_encoder_is_told_before_the_images_are_read(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # the data do not exist either: whichever is looked at first is named
    words = ["features", "--encoders", given, "--data", str(tmp_path / "no data"), "--out", str(tmp_path / "out")]
    assert main(words) != 0
    told = capsys.readouterr().err
    assert given.removeprefix("scratch:") in told and "no data" not in told
