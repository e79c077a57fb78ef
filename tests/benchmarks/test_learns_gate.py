"""The gate of `learns.py` can fail, in each way in which a method or a control can; its rows are judged by it."""

from __future__ import annotations

import dataclasses
from typing import Any

import learns
import pytest
import readme_table


def runs(*after: float, control: str = "") -> list[dict[str, Any]]:
    """Runs of one method that began at 0.2 and ended here."""
    run = dataclasses.asdict(learns.Run("simclr", "resnet", "pictures", 0, 10, "cores", "", control))
    told = {"before": 0.2, "rank_before": 5.0, "rank_after": 20.0, "loss": [4.0, 3.0], "steps_made": 10, "seconds": 1.0}
    return [run | told | {"after": one} for one in after]


@pytest.mark.parametrize(
    ("after", "untrained", "pixels", "passed"),
    [
        ((0.40, 0.38, 0.42), 0.20, 0.34, True),
        ((0.40, 0.38, 0.42), 0.20, 0.36, False),  # better than raw pixels, but not by the margin
        ((0.40, 0.38, 0.42), 0.36, 0.20, False),  # the same of untrained encoders
        ((0.90, 0.20, 0.10), 0.20, 0.36, False),  # the mean counts, not the best seed
    ],
)
def test_a_method_must_clear_both_baselines(
    after: tuple[float, ...], untrained: float, pixels: float, passed: bool
) -> None:
    assert learns.verdict(runs(*after), [untrained, untrained], pixels)["passed"] is passed


def test_a_control_that_passes_is_a_fault_and_so_are_a_method_that_does_not_and_one_that_broke_off() -> None:
    good, bad = runs(0.5, 0.5), runs(0.3, 0.3)
    spoilt = [run | {"control": "constant head"} for run in good]
    judged = [learns.verdict(one, [0.2, 0.2], 0.3) for one in (good, bad, spoilt)]
    broken = {"method": "dino", "family": "vit", "passed": False, "error": "out of memory"}

    found = learns.faults({"rows": [*judged, broken], "margin": learns.MARGIN})

    assert [sentence.split(" on ")[0] for sentence in found] == [
        "dino (vit) broke off.",
        "simclr (resnet) did not pass",
        "simclr (resnet) with constant head passed",
    ]


def test_settings_name_methods_encoders_and_images_that_exist() -> None:
    methods = {method for method, _ in learns.ROWS}
    known = methods | {f"{method} {family}" for method, family in learns.ROWS}
    known |= {f"{method} {family} {task}" for method, family in learns.ROWS for task in learns.TASKS}
    assert set(learns.SMALL_DATA) <= known
    assert set().union(*learns.STEPS.values()) <= known
    assert set(learns.STEPS) <= set(learns.TASKS)
    overlays = {path.stem for path in (learns.ROOT / "configs/methods").glob("*.json")}
    assert methods == overlays - {"simclr_radnet"}, "RadNet's variant is SimCLR once the views are those for few images"


def test_the_results_that_are_kept_were_judged_by_the_margin() -> None:
    kept = readme_table.load("learns")
    assert kept["margin"] == learns.MARGIN
    for one in kept["rows"]:
        mean = sum(one["after"]) / len(one["after"])
        assert one["passed"] is (min(mean - one["random"], mean - one["pixels"]) >= learns.MARGIN), one["method"]
        assert one["passed"] is False or not one["control"], "a spoilt run passed"


@pytest.mark.parametrize("path", [readme_table.PAGE, readme_table.README], ids=lambda path: path.name)
def test_the_tables_are_those_of_the_results(path: Any) -> None:
    assert readme_table.pages()[path] == path.read_text(), "python benchmarks/readme_table.py writes them anew"
