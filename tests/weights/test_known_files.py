"""Published files are recognised by their hash, and their terms are stated with the place they were read in."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
import timm
import torchvision

from monai_ssl_transfer.networks import encoder_names
from monai_ssl_transfer.weights.published.files import KNOWN_FILES, by_name, hash_in_name, known_file
from monai_ssl_transfer.weights.published.terms import GASTRONET, TERMS
from monai_ssl_transfer.weights.reading.files import read_file

SWSL = "RN50_Billion-Scale-SWSL+GastroNet-5M_DINOv1.pth"


def test_gastronet_has_eight_files_that_may_not_be_handed_on() -> None:
    files = [known for known in KNOWN_FILES if known.terms is GASTRONET]
    assert len({known.sha256 for known in files}) == 8
    for known in files:
        assert known_file(known.sha256) is known
        assert known_file(known.sha256.upper()) is known
        assert (known.redistribution, known.commercial) == (False, False)
        assert "CC BY-NC-ND 4.0" in known.licence
        assert "10.1016/j.media.2024.103298" in known.acknowledgement
    assert sum(known.architecture == "resnet50" for known in files) == 6
    assert known_file("20ab749ec4bfdd53a79fc82784d04d9480d87d9f122b877d0f20c6f40aabdc44").architecture == (
        "vit_base_dinov2_reg"
    )
    assert [known.megabytes for known in files].count(94.4) == 6


@pytest.mark.parametrize("plus", ["+", "%2B", "%2b", "_2B", "2B"])
def test_the_plus_sign_may_be_written_otherwise(plus: str) -> None:
    assert by_name(f"/downloads/{SWSL.replace('+', plus)}").name == SWSL
    assert by_name(SWSL.replace("+", plus).replace(".pth", " (1).pth")).name == SWSL


def test_a_name_is_only_a_hint_and_a_hash_is_needed_to_know(tmp_path: Path) -> None:
    assert by_name("C:\\weights\\mae_pretrain_vit_base.pth").method == "mae"
    for name in ("model.pth", "resnet50.pth", "", "VITS_GastroNet-5M_DINOv1"):
        assert by_name(name) is None
    assert known_file("") is None
    assert known_file(hashlib.sha256(b"other").hexdigest()) is None


def test_entries_are_complete() -> None:
    names = [name for known in KNOWN_FILES for name in (known.name, *known.names)]
    assert len(set(names)) == len(names)
    hashes = [known.sha256 for known in KNOWN_FILES if known.sha256]
    assert len(set(hashes)) == len(hashes) == 16
    for known in KNOWN_FILES:
        assert not known.sha256 or re.fullmatch("[0-9a-f]{64}", known.sha256)
        assert known.architecture in encoder_names()
        assert known.domain
        assert known.method
        assert len(known.mean) == len(known.std)
        assert known.terms in TERMS.values()
        stated = hash_in_name(known.name)
        assert not known.sha256 or known.sha256.startswith(stated)


def test_terms_say_where_they_were_read() -> None:
    for terms in TERMS.values():
        assert terms.licence
        assert re.search(r"\w\.\w", terms.read_in)
        # what forbids commercial use or redistribution must be known from the text of the licence, too
        assert (terms.commercial is False) <= ("NC" in terms.licence)
    unknown = {name for name, terms in TERMS.items() if None in (terms.redistribution, terms.commercial)}
    assert unknown == {"Barlow Twins", "torchvision", "RadNet"}


def test_figures_of_other_publishers_agree_with_timm_and_torchvision() -> None:
    pairs = {
        "dinov2_vits14_pretrain.pth": "vit_small_patch14_dinov2.lvd142m",
        "dinov2_vits14_reg4_pretrain.pth": "vit_small_patch14_reg4_dinov2.lvd142m",
        "dinov2_vitb14_pretrain.pth": "vit_base_patch14_dinov2.lvd142m",
        "dinov2_vitb14_reg4_pretrain.pth": "vit_base_patch14_reg4_dinov2.lvd142m",
        "dino_vitbase16_pretrain.pth": "vit_base_patch16_224.dino",
        "dino_deitsmall16_pretrain.pth": "vit_small_patch16_224.dino",
        "mae_pretrain_vit_base.pth": "vit_base_patch16_224.mae",
        "resnet50-0676ba61.pth": "resnet50.tv_in1k",
        "resnet50-11ad3fa6.pth": "resnet50.tv2_in1k",
        "resnet18-f37072fd.pth": "resnet18.tv_in1k",
        "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0.npz": "vit_tiny_patch16_224.augreg_in21k",
        "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0.npz": "vit_small_patch16_224.augreg_in21k",
        "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz": "vit_base_patch16_224.augreg_in21k",
    }
    for name, entry in pairs.items():
        known, cfg = by_name(name), timm.get_pretrained_cfg(entry)
        assert known is not None
        assert cfg.url.endswith(name)
        assert (known.mean, known.std, known.image_size) == (
            cfg.mean,
            cfg.std,
            (cfg.test_input_size or cfg.input_size)[1],
        )
    urls = [entry.url for entry in torchvision.models.ResNet50_Weights]
    urls += [entry.url for entry in torchvision.models.ResNet18_Weights]
    assert {url.rsplit("/", 1)[1] for url in urls} <= {known.name for known in KNOWN_FILES if known.sha256}


def test_the_hash_that_a_name_states() -> None:
    assert hash_in_name("resnet50-0676ba61.pth") == "0676ba61"
    assert hash_in_name("dino.pth") == hash_in_name("run-20240101.pth.tar") == hash_in_name("a-0676ba6.pth") == ""
    file = Path(__file__).parents[2].parent / "shared/data/checkpoints/resnet20-12fca82f.th"
    if not file.is_file():
        pytest.skip("needs the shared data")
    assert read_file(file).sha256.startswith(hash_in_name(file.name))
    assert known_file(read_file(file).sha256) is None
