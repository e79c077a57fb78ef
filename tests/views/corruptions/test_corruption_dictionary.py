"""The dictionary transform: any order and process, its place in every bundle's evaluation, refusals."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, Lambdad

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.views.corruptions.dictionary import Corruptiond, corrupt_after

ROOT = Path(__file__).resolve().parents[3]
BUNDLES = sorted(
    path.parent.parent.name
    for path in ROOT.glob("bundles/*/configs/evaluate.json")
    if "keep_evaluation" in path.read_text()
)
PLACES = {"photographs": "LoadFramed", "ct_volumes": "Orientationd", "mr_volumes": "Orientationd", "ct_slices": None}


def overlays_of(bundle: str) -> tuple[str, ...]:
    special = {
        "ct_liver_segmentation": ("ct_volumes",),
        "ct_body_region_classification": ("ct_slices",),
        "volume_segmentation": ("ct_volumes", "mr_volumes"),
    }
    return special.get(bundle, ("photographs",))


def frames(count: int) -> list[dict]:
    random = np.random.default_rng(0)
    return [
        {"image": torch.from_numpy(random.integers(60, 200, (3, 32, 40), np.uint8)), "name": f"n{i}"}
        for i in range(count)
    ]


def test_order_and_workers_do_not_matter() -> None:
    transform = Corruptiond("image", "photograph", "speckle_noise", 3)
    cases = frames(6)
    alone = [transform(case)["image"] for case in cases]
    with ThreadPoolExecutor(3) as pool:
        others = list(pool.map(lambda case: transform(case)["image"], cases[::-1]))[::-1]
    assert all(torch.equal(a, b) for a, b in zip(alone, others, strict=True))
    assert alone[0].dtype == torch.uint8
    assert not torch.equal(alone[0], cases[0]["image"])
    assert torch.equal(Corruptiond("image", "photograph", "speckle_noise", 0)(cases[0])["image"], cases[0]["image"])


def test_a_volume_keeps_its_affine_and_uses_its_spacing() -> None:
    affine = torch.diag(torch.tensor([2.0, 2.0, 5.0, 1.0], dtype=torch.float64))
    step = torch.zeros(1, 6, 6, 8)
    step[..., 4:] = 100
    case = {"image": MetaTensor(step, affine=affine), "case": "7"}
    found = Corruptiond("image", "ct", "slice_thickness", 5, identity=["case"])(case)["image"]
    assert isinstance(found, MetaTensor)
    assert torch.equal(found.affine, affine)
    assert 0 < float(found[0, 0, 0, 3]) < float(found[0, 0, 0, 4]) < 100


def test_modalities_of_an_mr_volume_are_disturbed_apart() -> None:
    transform = Corruptiond("image", "mr", "rician_noise", 3, identity=["case"])
    case = {"image": MetaTensor(torch.full((2, 8, 9, 4), 500.0)), "case": "7"}
    found = transform(case)["image"]
    assert found.shape == (2, 8, 9, 4) and isinstance(found, MetaTensor)
    assert torch.equal(found, transform(case)["image"]) and not torch.equal(found[0], found[1])
    with pytest.raises(DataError, match="modalities, rows, columns, slices"):
        transform({"image": torch.zeros(8, 9, 4), "case": "7"})


def test_slices_of_a_store_are_known_by_series_and_number() -> None:
    transform = Corruptiond("image", "ct", "quantum_noise", 3, identity=["series", "index"])
    case = {"image": torch.zeros(3, 16, 16, dtype=torch.int16), "series": "s", "index": 4, "spacing": torch.ones(2)}
    one, other = transform(case)["image"], transform({**case, "index": 5})["image"]
    assert one.shape == (3, 16, 16) and one.dtype == torch.int16
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("bundle", "kind"), [(one, kind) for one in BUNDLES for kind in overlays_of(one)])
def test_every_task_bundle_takes_its_overlay(bundle: str, kind: str) -> None:
    """The corruption comes right after the image is read, and all other transforms stay in their order."""
    parser = ConfigParser()
    configs = ROOT / "bundles" / bundle / "configs"
    overlay = ROOT / "configs" / "robustness" / f"{kind}.json"
    parser.read_config([str(one) for one in (configs / "train.json", configs / "evaluate.json", overlay)])
    parser["severity"] = 2
    before = [type(one).__name__ for one in parser.get_parsed_content("validate#preprocessing").transforms]
    after = parser.get_parsed_content("validate#dataset#transform").transforms
    names = [type(one).__name__ for one in after]
    place = names.index("Corruptiond")
    assert names[:place] + names[place + 1 :] == before
    assert place == (0 if PLACES[kind] is None else before.index(PLACES[kind]) + 1)
    assert after[place].severity == 2


def test_overlays_are_plain_json_of_few_settings() -> None:
    for kind in PLACES:
        content = json.loads((ROOT / "configs" / "robustness" / f"{kind}.json").read_text())
        assert set(content) == {"_desc_", "corruption", "severity", "corruption_seed", "validate#dataset#transform"}


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="has no item 'name'"):
        Corruptiond("image", "photograph", "smoke", 1)({"image": frames(1)[0]["image"]})
    with pytest.raises(DataError, match="no corruption 'ring'"):
        Corruptiond("image", "photograph", "ring", 1)
    with pytest.raises(DataError, match="no severity 9"):
        Corruptiond("image", "ct", "ring", 9)
    steps = Compose([Lambdad("image", lambda x: x)])
    with pytest.raises(DataError, match="no transform LoadFramed"):
        corrupt_after(steps, "LoadFramed", Corruptiond("image", "photograph", "smoke", 1))
