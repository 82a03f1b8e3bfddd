"""Rates with exact intervals, against the binomial tails that define them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from novad.evaluation.rates import Rate


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
