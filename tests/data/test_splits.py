from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.data.splits import explicit_split, grouped_split, load_or_make_split, nested_fractions
from monai_ssl_transfer.errors import DataError

PARTS = {"train": 0.7, "validation": 0.15, "test": 0.15}


@st.composite
def _cases(draw: st.DrawFn, smallest: int = 20) -> tuple[list[str], list[str]]:
    """Items of patients, each patient of one class; every class has some patients."""
    count = draw(st.integers(smallest, 60))
    classes = draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count))
    sizes = draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    items = [(f"p{n}", classes[n]) for n in range(count) for _ in range(sizes[n])]
    items = draw(st.permutations(items))
    return [group for group, _ in items], [stratum for _, stratum in items]


@settings(max_examples=60, deadline=None)
@given(_cases(), st.integers(0, 1000))
def test_no_group_on_two_sides_nothing_lost_and_strata_divided_as_the_whole(
    cases: tuple[list[str], list[str]], seed: int
) -> None:
    groups, strata = cases
    split = grouped_split(groups, strata, PARTS, seed)
    assert sorted(index for part in split.values() for index in part) == list(range(len(groups)))
    names = {part: {groups[index] for index in indices} for part, indices in split.items()}
    assert sum(len(members) for members in names.values()) == len(set(groups))
    assert len(set.union(*names.values())) == len(set(groups))
    stratum_of = dict(zip(groups, strata, strict=True))
    sizes = Counter(stratum_of.values())
    for part, members in names.items():
        counts = Counter(stratum_of[group] for group in members)
        for stratum, size in sizes.items():
            assert abs(counts[stratum] - size * PARTS[part]) < 1 + 1e-9


@settings(max_examples=40, deadline=None)
@given(_cases(), st.integers(0, 1000), st.randoms())
def test_the_order_of_the_cases_does_not_matter(cases: tuple[list[str], list[str]], seed: int, random: object) -> None:
    groups, strata = cases
    order = list(range(len(groups)))
    random.shuffle(order)  # type: ignore[attr-defined]
    one = grouped_split(groups, strata, PARTS, seed)
    other = grouped_split([groups[i] for i in order], [strata[i] for i in order], PARTS, seed)
    for part in PARTS:
        assert {groups[i] for i in one[part]} == {groups[order[i]] for i in other[part]}


@settings(max_examples=40, deadline=None)
@given(_cases(), st.integers(0, 1000))
def test_fractions_nest_and_hold_every_class(cases: tuple[list[str], list[str]], seed: int) -> None:
    groups, strata = cases
    everything, classes = len(set(groups)), len(set(strata))
    least = math.ceil(1000 * classes / everything) / 1000
    drawn = nested_fractions(groups, strata, sorted({least, max(least, 0.5), 1.0}), seed)
    smaller: set[int] = set()
    for share, indices in drawn.items():
        assert smaller <= set(indices)
        assert {strata[i] for i in indices} == set(strata)
        chosen = {groups[i] for i in indices}
        assert sorted(i for i, group in enumerate(groups) if group in chosen) == indices  # whole groups
        assert len(chosen) == round(share * everything) >= classes
        smaller = set(indices)
    assert smaller == set(range(len(groups)))
    with pytest.raises(DataError, match=f"too few for one of every class: take a fraction of {least:g} or more"):
        nested_fractions(groups, strata, [(classes - 0.6) / everything], seed)


def test_a_fraction_is_stratified() -> None:
    groups = [f"p{n}" for n in range(100)]
    strata = ["rare" if n < 20 else "common" for n in range(100)]
    chosen = nested_fractions(groups, strata, (0.5,), 3)[0.5]
    assert Counter(strata[i] for i in chosen) == {"rare": 10, "common": 40}


def test_the_seed_matters() -> None:
    groups = list(range(50))
    assert grouped_split(groups, None, PARTS, 1) == grouped_split(groups, None, PARTS, 1)
    assert grouped_split(groups, None, PARTS, 1) != grouped_split(groups, None, PARTS, 2)


@pytest.mark.parametrize("count", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(5))
def test_small_data_sets_have_training_and_validation_cases(count: int, seed: int) -> None:
    split = grouped_split([str(n) for n in range(count)], None, PARTS, seed)
    assert split["train"]
    assert split["validation"]
    assert len(split["test"]) == (1 if count > 2 else 0)


def test_a_class_that_cannot_be_trained_on_is_named() -> None:
    with pytest.raises(DataError, match=r"class (ill|well)"):
        grouped_split(["a", "b"], ["ill", "well"], PARTS, 0)


@pytest.mark.parametrize("count", range(3, 12))
def test_a_rare_class_goes_to_training(count: int) -> None:
    strata = ["ill"] + ["well"] * (count - 1)
    for seed in range(4):
        split = grouped_split([str(n) for n in range(count)], strata, PARTS, seed)
        assert 0 in split["train"]
        assert split["validation"]


def test_a_patient_with_several_classes_stays_whole() -> None:
    groups = [f"p{n // 3}" for n in range(60)]
    strata = [("head", "chest", "knee")[n % 3] for n in range(60)]
    split = grouped_split(groups, strata, PARTS, 0)
    sides = [{groups[i] for i in part} for part in split.values()]
    assert sum(map(len, sides)) == 20
    assert {strata[i] for i in split["train"]} == set(strata)


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(DataError, match="at least 2"):
        grouped_split(["only"] * 40, None, PARTS, 0)
    with pytest.raises(DataError, match="no cases"):
        grouped_split([], None, PARTS, 0)


@pytest.mark.parametrize("parts", [{"train": 0.7}, {"validation": 1.0}, {"train": 1.2, "validation": -0.2}])
def test_impossible_shares_are_refused(parts: dict[str, float]) -> None:
    with pytest.raises(DataError, match="add up to 1"):
        grouped_split(["a", "b", "c"], None, parts, 0)


def test_the_file_is_reused_for_every_fraction(tmp_path: Path) -> None:
    path = tmp_path / "run" / "split.json"
    groups = [f"p{n // 2}" for n in range(80)]
    strata = ["ab"[n // 2 % 2] for n in range(80)]
    full = load_or_make_split(path, groups, strata, seed=5)
    written = path.read_bytes()
    tenth = load_or_make_split(path, groups, strata, seed=5, fraction=0.1)
    half = load_or_make_split(path, groups, strata, seed=5, fraction=0.5)
    assert path.read_bytes() == written
    assert set(tenth["train"]) < set(half["train"]) < set(full["train"])
    assert tenth["validation"] == full["validation"]
    assert tenth["test"] == full["test"]
    assert len({groups[i] for i in half["train"]}) == round(0.5 * len({groups[i] for i in full["train"]}))
    assert [file.name for file in path.parent.iterdir()] == ["split.json"]


def test_another_seed_draws_the_share_within_the_same_division(tmp_path: Path) -> None:
    groups = [f"p{n // 2}" for n in range(80)]
    strata = ["ab"[n // 2 % 2] for n in range(80)]

    def drawn(fraction: float, fraction_seed: int | None) -> dict[str, list[int]]:
        file = tmp_path / "split.json"
        return load_or_make_split(file, groups, strata, seed=5, fraction=fraction, fraction_seed=fraction_seed)

    full, plain = drawn(1.0, None), drawn(0.3, None)
    assert drawn(0.3, 5) == plain
    shares = [drawn(0.3, seed) for seed in (6, 7)]
    assert all(share["validation"] == full["validation"] and share["test"] == full["test"] for share in shares)
    assert len({tuple(share["train"]) for share in (plain, *shares)}) == 3
    for seed, share in zip((6, 7), shares, strict=True):
        assert set(share["train"]) < set(drawn(0.6, seed)["train"]) < set(full["train"])
        assert len(share["train"]) == len(plain["train"])
        assert {strata[i] for i in share["train"]} == {"a", "b"}


def test_the_file_decides(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    groups = [str(n) for n in range(10)]
    first = load_or_make_split(path, groups)
    content = json.loads(path.read_text())
    content["groups"]["test"].append(content["groups"]["train"].pop())
    path.write_text(json.dumps(content))
    assert len(load_or_make_split(path, groups)["test"]) == len(first["test"]) + 1


def test_indices_follow_the_cases_when_they_are_listed_in_another_order(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    groups = [str(n) for n in range(12)]
    first = load_or_make_split(path, groups)
    again = load_or_make_split(path, groups[::-1])
    assert {groups[i] for i in first["train"]} == {groups[::-1][i] for i in again["train"]}


def test_changed_cases_settings_and_damage_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    groups = [str(n) for n in range(10)]
    load_or_make_split(path, groups, seed=1)
    with pytest.raises(DataError, match=r"split\.json was written for other cases"):
        load_or_make_split(path, [*groups, "10"], seed=1)
    with pytest.raises(DataError, match=r"split\.json was written for other cases"):
        load_or_make_split(path, groups, ["x"] * 9 + ["y"], seed=1)
    with pytest.raises(DataError, match=r"split\.json was drawn with seed 1"):
        load_or_make_split(path, groups, seed=2)
    with pytest.raises(DataError, match="drawn with"):
        load_or_make_split(path, groups, seed=1, parts={"train": 0.5, "validation": 0.5})
    path.write_text(path.read_text()[:50])
    with pytest.raises(DataError, match=r"split\.json is not a split"):
        load_or_make_split(path, groups, seed=1)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01])
def test_a_fraction_out_of_range_is_refused(tmp_path: Path, fraction: float) -> None:
    with pytest.raises(DataError, match="fraction"):
        load_or_make_split(tmp_path / "split.json", ["a", "b", "c"], fraction=fraction)


def test_explicit_lists() -> None:
    cases = ["0", "1017", "2001", "2002"]
    assert explicit_split(cases, train=["0", 2001], validation=["1017"]) == {
        "train": [0, 2],
        "validation": [1],
        "test": [],
    }
    assert explicit_split(cases, train=["0"], validation=1017)["validation"] == [1]


def test_explicit_lists_with_mistakes_are_refused() -> None:
    cases = ["0", "1", "2"]
    with pytest.raises(DataError, match=r"names 7.*choose among 0, 1, 2"):
        explicit_split(cases, train=["0", "7"], validation=["1"])
    with pytest.raises(DataError, match="0 is listed for train and for test"):
        explicit_split(cases, train=["0"], validation=["1"], test=["0"])
    with pytest.raises(DataError, match="p is listed for train and for validation"):
        explicit_split(cases, train=["0"], validation=["1"], groups=["p", "p", "q"])
    with pytest.raises(DataError, match="twice"):
        explicit_split(cases, train=["0", "0"], validation=["1"])
    with pytest.raises(DataError, match="No case is listed for validation"):
        explicit_split(cases, train=["0"], validation=[])
