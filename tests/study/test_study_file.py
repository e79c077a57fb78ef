"""Studies as YAML: strict reading, variables, the matrix, and the studies that are shipped."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.errors import StudyError
from monai_ssl_transfer.installation import project_folder
from monai_ssl_transfer.study.declaration import read_declaration, write_declaration
from monai_ssl_transfer.study.planning.declaring import declare_plan
from monai_ssl_transfer.study.planning.gpus_here import gpus_here
from monai_ssl_transfer.study.planning.known_settings import judges_what_chose_its_epoch
from monai_ssl_transfer.study.planning.matrix import StudyPlan
from monai_ssl_transfer.study.planning.specs import Specs
from monai_ssl_transfer.study.planning.strict_yaml import read_strict_yaml
from monai_ssl_transfer.study.planning.study_file import read_study

STUDIES = project_folder() / "configs" / "studies"


def minimal(tmp_path: Path, **changes: Any) -> Path:
    """A study of two initialisations, two tasks and two protocols; a change of None removes a key."""
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    task = {"bundle": "endoscopy_polyp_segmentation", "data": str(data), "metrics": ["dice"]}
    task["network"] = "configs/networks/unet_{encoder}.json"
    (tmp_path / "weights.pth").write_bytes(b"weights")
    content: dict[str, Any] = {
        "title": "t",
        "budget": "none",
        "seeds": [0, 1],
        "encoder": "resnet18",
        "reference": "scratch",
        "initialisations": {"own": str(tmp_path / "weights.pth"), "scratch": None},
        "tasks": {"one": task, "two": {**task, "fractions": [1.0, 0.5]}},
        "protocols": {"full": "configs/protocols/full.json", "frozen": "configs/protocols/frozen.json"},
    } | changes
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({key: one for key, one in content.items() if one is not None}, sort_keys=False))
    return file


def refusal(file: Path, given: Mapping[str, str] | None = None) -> str:
    with pytest.raises(StudyError) as caught:
        read_study(file, given)
    text = str(caught.value)
    assert "\n" not in text
    assert str(file) in text
    return text


def test_matrix_is_the_product_with_the_reference_first_and_seeds_outermost(tmp_path: Path) -> None:
    plan = read_study(minimal(tmp_path))
    settings_of = [("one", 1.0), ("two", 1.0), ("two", 0.5)]
    wanted = {
        (task, start, protocol, fraction, seed)
        for (task, fraction), start, protocol, seed in itertools.product(
            settings_of, ("scratch", "own"), ("full", "frozen"), (0, 1)
        )
    }
    cells = plan.cells()
    assert {(c.task, c.initialisation, c.protocol, c.fraction, c.seed) for c in cells} == wanted
    assert len(cells) == len(wanted) == len({cell.id for cell in cells})
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert [cell.initialisation for cell in cells[:2]] == ["scratch", "own"]


def test_limits_of_initialisations_tasks_and_protocols(tmp_path: Path) -> None:
    file = minimal(
        tmp_path,
        initialisations={"scratch": {"tasks": ["one"]}, "own": {"weights": "weights.pth", "protocols": ["full"]}},
        protocols={
            "full": {"overlays": "configs/protocols/full.json", "fractions": [0.5]},
            "frozen": "configs/protocols/frozen.json",
        },
    )
    found = {(c.task, c.initialisation, c.protocol, c.fraction) for c in read_study(file).cells()}
    assert found == {("one", "scratch", "frozen", 1.0), ("two", "own", "full", 0.5)}


def test_a_cell_gets_a_gpu_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for found, resources, gpus, words in [
        (0, None, 0, "GPUs: 0 (none here"),
        (4, None, 1, "GPUs: 1 (this machine has one"),
        (4, {"cpus": 8}, 1, "CPU cores: 8, GPUs: 1 (this machine"),
        (4, {"gpus": 0}, 0, "GPUs: 0 (stated"),
        (0, {"gpus": 0.5}, 0.5, "GPUs: 0.5 (stated"),
    ]:
        monkeypatch.setattr("monai_ssl_transfer.study.planning.study_file.gpus_here", lambda n=found: n)
        plan = read_study(minimal(tmp_path, resources=resources))
        assert plan.resources["gpus"] == gpus
        assert words in plan.share()


def test_gpus_are_counted_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(text: str, code: int) -> int:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\necho '{text}'\nexit {code}\n")
        script.chmod(0o755)
        monkeypatch.setattr("sys.executable", str(script))
        gpus_here.cache_clear()
        return gpus_here(tmp_path)

    assert answer("2", 0) == 0  # no device file: nobody is asked
    assert not (tmp_path / "asked").exists()
    (tmp_path / "nvidia0").touch()
    assert answer("2", 0) == 2
    assert [answer("2", 1), answer("", 0), answer("x", 0)] == [0, 0, 0]
    gpus_here.cache_clear()


@pytest.mark.parametrize(
    ("bundle", "settings_", "split_seed"),
    [
        ("ct_liver_segmentation", {}, 0),
        ("ct_body_region_classification", {}, 0),
        ("volume_segmentation", {}, 0),
        ("volume_segmentation", {"split_seed": "@seed"}, "@seed"),
        ("ct_liver_segmentation", {"split_seed": 7}, 7),
        ("endoscopy_polyp_segmentation", {}, None),
    ],
)
def test_all_seeds_are_judged_on_the_same_cases(
    bundle: str, settings_: dict[str, Any], split_seed: Any, tmp_path: Path
) -> None:
    task = {"bundle": bundle, "data": str(tmp_path), "metrics": ["dice"], "settings": settings_}
    task["network"] = "configs/networks/unet_{encoder}.json"
    plan = read_study(minimal(tmp_path, tasks={"one": task}))
    specs = Specs(plan, tmp_path / "out")
    found = [specs.cell(cell)["settings"] for cell in plan.cells()]
    assert {one["seed"] for one in found} == {0, 1}
    assert {one.get("split_seed") for one in found} == {split_seed}
    starts = list(plan.initialisations.values())
    assert specs.embedding(plan.tasks["one"], starts)["settings"].get("split_seed") == split_seed


def test_overlay_of_a_task_may_name_the_division(tmp_path: Path) -> None:
    overlay = tmp_path / "division.json"
    overlay.write_text('{"split_seed": 3}')
    task = {"bundle": "ct_liver_segmentation", "data": str(tmp_path), "metrics": ["dice"], "overlays": str(overlay)}
    task["network"] = "configs/networks/unet_{encoder}.json"
    plan = read_study(minimal(tmp_path, tasks={"one": task}))
    assert "split_seed" not in Specs(plan, tmp_path / "out").cell(plan.cells()[0])["settings"]


def test_declaration_compares_all_with_the_reference_in_every_setting(tmp_path: Path) -> None:
    plan = read_study(minimal(tmp_path, families=["task"], margin={"dice": 0.02}))
    declaration = declare_plan(plan)
    assert [(family.name, len(family.comparisons)) for family in declaration.families] == [("one", 2), ("two", 4)]
    for family in declaration.families:
        for one in family.comparisons:
            assert (one.candidate.initialisation, one.reference.initialisation) == ("own", "scratch")
            assert one.candidate.protocol == one.reference.protocol
            assert one.candidate.fraction == one.reference.fraction
    assert all(cell.seeds == (0, 1) for cell in declaration.cells)
    assert declaration.metric("dice").margin == 0.02


def test_one_metric_of_a_task_is_tested_and_the_others_are_shown(tmp_path: Path) -> None:
    """Dice and IoU of a run are one finding: they would count as two in a family."""
    task = yaml.safe_load(minimal(tmp_path).read_text())["tasks"]["one"] | {"metrics": ["dice", "iou"]}
    both = {"one": task, "two": {**task, "primary": ["iou", "dice"]}}
    declaration = declare_plan(read_study(minimal(tmp_path, tasks=both, families=["task"], margin={"iou": 0.1})))
    tested = {family.name: [one.metric for one in family.comparisons] for family in declaration.families}
    assert tested == {"one": ["dice"] * 2, "two": ["dice", "iou"] * 2}
    assert [(one.candidate.task, one.metric) for one in declaration.shown] == [("one", "iou")] * 2
    write_declaration(declaration, tmp_path / "study.json")
    assert read_declaration(tmp_path / "study.json") == declaration
    assert "tests 'hd95'" in refusal(minimal(tmp_path, tasks={"one": {**task, "primary": "hd95"}}))
    assert "has a margin of 'iou', which is not tested" in refusal(
        minimal(tmp_path, tasks={"one": task}, margin={"iou": 0.1})
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"titel": "x"}, "unknown key 'titel': did you mean 'title'"),
        ({"seeds": [0, 0]}, "a seed twice"),
        ({"seeds": [True]}, "whole numbers"),
        ({"seeds": 3}, "no list"),
        ({"budget": None}, "lacks 'budget'"),
        ({"reference": "ImageNet"}, "'ImageNet', which is no initialisation"),
        ({"initialisations": {"scratch": None, "own": "absent.pth"}}, "absent.pth, which are not there"),
        ({"protocols": {"full": "configs/protocols/fulll.json"}}, "fulll.json, which is not there"),
        ({"protocols": {"p": {"probe": "knnn"}}}, "probe 'knnn': choose one of knn"),
        ({"protocols": {"p": {"probe": "knn", "settings": {"k": 3}}}}, "has no setting 'k'"),
        ({"encoder": "resnet34"}, "no network for the encoder resnet34"),
        ({"protocols": {"p": {"probe": "knn", "fractions": [0.1]}}}, "the fraction 0.1, which none of its tasks has"),
        ({"margin": {"dise": 0.1}}, "'dise' under 'margin'"),
        ({"margin": {"dice": -0.1}}, "must be above 0"),
        ({"families": ["colour"]}, "divides families by 'colour'"),
        ({"fractions": [0.5, 2]}, "fraction 2"),
    ],
)
def test_wrong_files_are_refused_in_one_sentence(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    text = refusal(minimal(tmp_path, **changes))
    assert words in text
    assert re.search(r", line \d+", text)


def test_line_of_the_key(tmp_path: Path) -> None:
    task = {"bundle": "endoscopy_polyp_segmentation", "data": ".", "metrics": ["dice"], "dta": "x"}
    file = minimal(tmp_path, tasks={"one": task})
    number = next(n for n, line in enumerate(file.read_text().splitlines(), 1) if "dta" in line)
    assert f"line {number} (tasks.one) has the unknown key 'dta': did you mean 'data'" in refusal(file)


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    file = minimal(tmp_path)
    file.write_text(file.read_text() + "title: again\n")
    assert "'title' a second time" in refusal(file)


def test_variables_come_from_the_command_line_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = minimal(tmp_path, title="${place.of.data}", variables={"place.of.data": None})
    assert "needs place.of.data: give --set place.of.data=VALUE, or set SSL_TRANSFER_PLACE_OF_DATA" in refusal(file)
    monkeypatch.setenv("SSL_TRANSFER_PLACE_OF_DATA", "environment")
    assert read_study(file).title == "environment"
    assert read_study(file, {"place.of.data": "given"}).title == "given"
    assert "no variable 'other'" in refusal(file, {"other": "x"})


def test_exponents_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "numbers.yaml"
    file.write_text("a: 1e-3\nb: 2.5E+1\nc: '1e-3'\nd: 1e\n")
    assert read_strict_yaml(file).content == {"a": 0.001, "b": 25.0, "c": "1e-3", "d": "1e"}


def texts(**size: int) -> st.SearchStrategy[str]:
    """Any text but an exponent, which PyYAML writes without quotes because it does not know it for a number."""
    return st.text(**size).filter(lambda one: not re.fullmatch(r"[-+]?[0-9_.]+[eE][-+]?[0-9]+", one))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(content=st.dictionaries(texts(min_size=1, max_size=5), PLAIN, max_size=4))
def test_strict_reading_gives_what_pyyaml_gives(
    content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    assert read_strict_yaml(file).content == yaml.safe_load(file.read_text(encoding="utf-8"))


def shipped(name: str, tmp_path: Path) -> StudyPlan:
    """A shipped study, with empty places for all that its user brings."""
    file = STUDIES / f"{name}.yaml"
    given_values = {}
    for variable in yaml.safe_load(file.read_text(encoding="utf-8")).get("variables", {}):
        place = tmp_path / variable
        place.mkdir()
        given_values[variable] = str(place)
    text = file.read_text(encoding="utf-8")
    for variable, below in re.findall(r"\$\{([\w.]+)\}/([\w.+/ -]+)", text):
        (tmp_path / variable / below.strip()).mkdir(parents=True, exist_ok=True)
    return read_study(file, given_values)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("smoke", 8),
        ("real_small", 36),
        ("real_adaptation", 28),
        ("radnet", 0),
        ("gastronet", 0),
        ("ssl4gie", 12 * 6 * 3),
        ("dinov2_radiology", 0),
    ],
)
def test_shipped_studies_can_be_planned(name: str, cells: int, tmp_path: Path) -> None:
    plan = shipped(name, tmp_path)
    assert len(plan.cells()) == cells or (cells == 0 and len(plan.cells()) > 100)
    declaration = declare_plan(plan)
    compared = {one.candidate.initialisation for family in declaration.families for one in family.comparisons}
    references = {one.reference for one in plan.initialisations.values()} - {""}
    assert compared | references == set(plan.initialisations)
    assert not compared & references


def test_every_published_study_is_there() -> None:
    names = {file.stem for file in STUDIES.glob("*.yaml")}
    assert names >= {"radnet", "gastronet", "ssl4gie", "dinov2_radiology", "smoke", "real_small", "real_adaptation"}


def test_shipped_studies_say_what_they_need() -> None:
    assert "weights.imagenet" in refusal(STUDIES / "radnet.yaml")


def test_a_misspelt_setting_is_refused(tmp_path: Path) -> None:
    text = (STUDIES / "smoke.yaml").read_text()
    for right, place in (("epochs: 4, batch", "pretraining of SimCLR"), ("epochs: 4, val", "task polyps")):
        file = tmp_path / "wrong.yaml"
        file.write_text(text.replace(right, right.replace("epochs", "epoch")))
        assert f"{place} sets 'epoch'" in refusal(file) and "did you mean epochs?" in refusal(file)


def test_a_bundle_without_a_test_part_is_named() -> None:
    notes = declare_plan(read_study(STUDIES / "smoke.yaml")).notes
    assert not [note for note in notes if "no test part" in note]
    plan = read_study(STUDIES / "smoke.yaml")
    for bundle in ("ct_liver_segmentation", "ct_body_region_classification", "volume_segmentation"):
        task = replace(plan.tasks["polyps"], bundle=bundle)
        assert not judges_what_chose_its_epoch(task)
        assert judges_what_chose_its_epoch(replace(task, settings={"test_fraction": 0}))
        assert judges_what_chose_its_epoch(replace(task, evaluation={"evaluate_part": "validation"}))
    listed = {"train_cases": ["0"], "validation_cases": ["1"]}
    assert judges_what_chose_its_epoch(replace(task, settings=listed))
    assert not judges_what_chose_its_epoch(replace(task, settings=listed | {"test_cases": ["2"]}))
    declared = declare_plan(replace(plan, tasks=plan.tasks | {"polyps": replace(task, settings=listed)}))
    assert [note for note in declared.notes if note.startswith("polyps: it has no test part")]
