"""Rates with exact intervals, against the binomial tails that define them."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from novad.evaluation.rates import Rate, surplus_p_value
from novad.vision.calibration import conformal_threshold


@given(st.integers(1, 300).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_the_ends_of_the_interval_make_the_count_a_tail_of_a_fortieth(drawn: tuple[int, int]) -> None:
    rate = Rate(*drawn)
    low, high = rate.ci95
    assert 0 <= low <= rate.share <= high <= 1
    if rate.count:
        assert binom.sf(rate.count - 1, rate.of, low) == pytest.approx(0.025, abs=1e-6)
    if rate.count < rate.of:
        assert binom.cdf(rate.count, rate.of, high) == pytest.approx(0.025, abs=1e-6)


def test_nothing_seen_does_not_mean_that_nothing_happens() -> None:
    assert Rate(0, 20).ci95 == pytest.approx((0, 1 - 0.025 ** (1 / 20)))


@pytest.mark.parametrize(
    ("calibrated", "asked", "alpha"), [(4, 3, 0.2), (5, 2, 0.4), (3, 4, 0.25), (6, 3, 0.15)]
)
def test_the_chance_of_a_surplus_is_that_of_all_orders_of_the_images(
    calibrated: int, asked: int, alpha: float
) -> None:
    """Of all ways to draw the calibration images out of all ranks, each as likely."""
    ranks = range(calibrated + asked)
    exceeding = []
    for drawn in combinations(ranks, calibrated):
        threshold = conformal_threshold(np.array(drawn, float), alpha)
        exceeding.append(sum(rank > threshold for rank in set(ranks) - set(drawn)))
    for failed in range(asked + 1):
        expected = np.mean(np.array(exceeding) >= failed)
        assert surplus_p_value(failed, asked, calibrated, alpha) == pytest.approx(expected, abs=1e-9)


def test_no_image_asked_speaks_against_nothing() -> None:
    assert surplus_p_value(0, 0, 10, 0.1) == 1
