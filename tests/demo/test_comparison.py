from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monai_ssl_transfer.demo.comparison import paired_difference


def test_interval_is_the_one_of_the_paired_t_test() -> None:
    first, second = [0.50, 0.61, 0.55, 0.58], [0.57, 0.66, 0.64, 0.60]
    reference = stats.ttest_rel(second, first).confidence_interval(0.95)
    ours = paired_difference(first, second)
    assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high))
    assert ours.mean == pytest.approx(np.mean(np.subtract(second, first)))


def test_verdict_claims_a_winner_only_when_the_interval_excludes_zero() -> None:
    better = paired_difference([0.5, 0.5, 0.5], [0.60, 0.61, 0.62])
    unsure = paired_difference([0.5, 0.5, 0.5], [0.40, 0.55, 0.62])
    assert "pretrained is better" in better.verdict("scratch", "pretrained")
    assert "worse" in paired_difference([0.6, 0.61, 0.62], [0.5, 0.5, 0.5]).verdict("scratch", "pretrained")
    assert "no difference" in unsure.verdict("scratch", "pretrained")


def test_arms_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="equal length"):
        paired_difference([0.1, 0.2], [0.1])
