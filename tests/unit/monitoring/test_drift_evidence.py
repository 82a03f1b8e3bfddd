"""Evidence is worth what it promises: exact on average, bounded per part, and rarely wrong."""

from itertools import permutations

import numpy as np
import pytest

from novad.monitoring.evidence import bet_factors, online_ranks, pulls, wealth


def test_ranks_count_what_lies_below_among_reference_and_earlier_values() -> None:
    ranks = online_ranks(np.array([1.0, 3.0]), np.array([2.0, 2.0, 9.0, 0.0]), np.full(4, 0.5))
    np.testing.assert_allclose(ranks, [1.5 / 3, (1 + 0.5 * 2) / 4, 4.5 / 5, 0.5 / 6])


def test_over_all_orders_each_rank_takes_each_place_equally_often_and_apart_from_the_one_before() -> None:
    values = np.array([0.3, 0.1, 0.4, 0.15, 0.9])
    found = [
        online_ranks(np.array(order[:2]), np.array(order[2:]), np.zeros(3)) for order in permutations(values)
    ]
    places = np.round(np.array(found) * [3, 4, 5]).astype(int)
    joint = {tuple(row): 0 for row in places}
    for row in places:
        joint[tuple(row)] += 1
    assert len(joint) == 3 * 4 * 5
    assert set(joint.values()) == {2}


def test_bets_are_fair_on_uniform_ranks_and_bounded() -> None:
    ranks = (np.arange(10_000) + 0.5) / 10_000
    factors = bet_factors(pulls(ranks))
    np.testing.assert_allclose(factors.mean(axis=0), 1, atol=1e-6)
    assert factors.min() > 0
    assert factors.max() <= 1.8


def test_wealth_is_the_mean_over_all_starts_and_bets() -> None:
    factors = np.random.default_rng(0).uniform(0.2, 1.8, (6, 3))
    series, held = wealth(factors, window=10)
    for last in range(6):
        products = [factors[start : last + 1].prod(axis=0) for start in range(last + 1)]
        np.testing.assert_allclose(held[last], np.sum(products, axis=0))
        assert series[last] == pytest.approx((np.mean(held[last]) + 10 - (last + 1)) / 10)


def test_a_long_change_does_not_overflow() -> None:
    series, _ = wealth(np.full((5000, 2), 1.8), window=5000)
    assert np.isfinite(series).all()
    assert (np.diff(series) >= 0).all()
