from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_ssl_transfer.errors import DataError
from monai_ssl_transfer.evaluation.probes.draws import draw_fraction, draw_per_class
from monai_ssl_transfer.evaluation.probes.few_shot import FewShotProbe
from monai_ssl_transfer.evaluation.probes.knn import KNNProbe
from monai_ssl_transfer.evaluation.probes.vectors import LabelledVectors, joined, shared_group_numbers

NAMES = ("a", "b", "c")


def _data(owners: list[int], targets: torch.Tensor, names: tuple[str, ...] = NAMES) -> LabelledVectors:
    vectors = torch.randn(len(owners), 5, generator=torch.Generator().manual_seed(0))
    cases = tuple(f"case{number}" for number in range(len(owners)))
    return LabelledVectors(vectors, targets, cases, tuple(f"p{one}" for one in owners), names)


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=12, max_size=60),
    seed=st.integers(0, 5),
    count=st.integers(1, 4),
)
def test_few_per_class_are_patients_nested_and_independent_of_the_order(
    pairs: list[tuple[int, int]], seed: int, count: int
) -> None:
    data = _data([owner for owner, _ in pairs], torch.tensor([target for _, target in pairs]))
    patients = [len({owner for owner, target in pairs if target == one}) for one in range(3)]
    if min(patients) < count:
        with pytest.raises(DataError, match=r"fewer than|No training case"):
            draw_per_class(data, count, seed)
        return
    drawn = draw_per_class(data, count, seed)
    for one in range(3):
        owners = [group for group, target in zip(drawn.groups, drawn.targets, strict=True) if target == one]
        assert len(owners) == len(set(owners)) == count
    everything = draw_per_class(data, count, seed, images="all")
    assert set(drawn.cases) <= set(everything.cases)
    expected = {(group, int(target)) for group, target in zip(drawn.groups, drawn.targets, strict=True)}
    of_them = [one for one, (owner, target) in enumerate(pairs) if (f"p{owner}", target) in expected]
    assert everything.cases == data.subset(of_them).cases
    assert set(draw_per_class(data.subset(range(len(data) - 1, -1, -1)), count, seed).cases) == set(drawn.cases)
    if count > 1:
        assert set(draw_per_class(data, count - 1, seed).cases) < set(drawn.cases)


def test_findings_are_drawn_each_and_so_are_patients_without() -> None:
    targets = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    data = _data([0, 1, 2, 3, 4], targets, ("x", "y"))
    for seed in range(8):
        drawn = draw_per_class(data, 1, seed)
        assert (drawn.targets.sum(0) >= 1).all() and (drawn.targets.sum(1) == 0).sum() == 1
    with pytest.raises(DataError, match="Class no finding has 2 patients to train on, fewer than the 3"):
        draw_per_class(_data([0, 1, 2, 3, 4, 5], torch.cat([targets, torch.ones(1, 2)]), ("x", "y")), 3, 0)


def test_fractions_nest_by_patient_and_hold_every_class_or_stop() -> None:
    owners = [number // 2 for number in range(120)]
    data = _data(owners, torch.tensor([owner % 3 if owner < 30 else 0 for owner in owners]))
    shares = [draw_fraction(data, fraction, 3) for fraction in (0.1, 0.25, 0.5, 1.0)]
    assert [len(set(one.groups)) for one in shares] == [6, 15, 30, 60]
    for small, large in pairwise(shares):
        assert set(small.cases) < set(large.cases)
    for one in shares:
        assert len(one) == 2 * len(set(one.groups)) and set(one.targets.tolist()) == {0, 1, 2}
    counts = torch.bincount(shares[2].targets) / len(shares[2])
    assert counts.tolist() == pytest.approx((torch.bincount(data.targets) / 120).tolist(), abs=0.03)
    with pytest.raises(DataError, match=r"are 1, too few for one of every class: take a fraction of 0.05"):
        draw_fraction(data, 0.02, 3)
    with pytest.raises(DataError, match="No training case has class c"):
        draw_fraction(data.subset((data.targets < 2).nonzero()[:, 0]), 0.5, 3)
    findings = replace(data, targets=torch.nn.functional.one_hot(data.targets, 3).float())
    assert draw_fraction(findings, 0.25, 3).cases == shares[1].cases


def test_few_shot_repeats_its_probe_on_other_draws() -> None:
    data = _data(list(range(30)), torch.arange(30) % 3)
    probe = FewShotProbe(shots=2, probe=KNNProbe(neighbours=(1,)), repeats=3)
    outcome = probe.predict(data, data.subset([]), data, 0)
    drawn = outcome.chosen["draws"]
    assert len(outcome.draws) == 3 and len({tuple(one["cases"]) for one in drawn}) == 3
    for probabilities, one in zip(outcome.draws, drawn, strict=True):
        bank = data.subset([data.cases.index(case) for case in one["cases"]])
        assert len(bank) == 6
        expected = KNNProbe(neighbours=(1,)).predict(bank, data.subset([]), data, 0).probabilities
        assert torch.equal(probabilities, expected)
    default = FewShotProbe(repeats=2).predict(data, data.subset([]), data, 0)  # needs no validation cases
    assert default.chosen["draws"][0]["C"] == 1.0
    with pytest.raises(DataError, match="Class a has 10 patients to train on, fewer than the 16"):
        FewShotProbe(shots=16).predict(data, data, data, 0)


def test_vectors_are_checked_averaged_and_joined() -> None:
    data = _data([0, 0, 1, 1, 1], torch.tensor([0, 0, 1, 1, 1]))
    means = data.volumes(["u", "u", "w", "v", "w"])
    assert means.cases == ("u", "w", "v") and means.groups == ("p0", "p1", "p1") and means.targets.tolist() == [0, 1, 1]
    torch.testing.assert_close(means.vectors[1], data.vectors[[2, 4]].mean(0))
    with pytest.raises(DataError, match="differ in target or patient"):
        data.volumes(["u", "u", "u", "v", "v"])
    other = _data([1, 7], torch.tensor([2, 0]))
    assert joined(data, other).groups[-2:] == ("p1", "p7")
    first, second = shared_group_numbers(data, other)
    assert first.tolist() == [0, 0, 1, 1, 1] and second.tolist() == [1, 2]
    with pytest.raises(DataError, match="targets do not fit"):
        replace(data, targets=data.targets + 2)
    with pytest.raises(DataError, match="embedding of case1 is not finite"):
        replace(data, vectors=data.vectors / torch.tensor([1, 0, 1, 1, 1])[:, None])
    with pytest.raises(DataError, match="give one of each"):
        replace(data, cases=data.cases[:2])
