"""Explanation quality on maps whose quality is known."""

import numpy as np
import pytest

from novad.evaluation.explanation import (
    energy_in_mask,
    grown,
    pointing_game,
    randomisation_similarity,
)

MASK = np.zeros((8, 8), bool)
MASK[2:4, 2:4] = True


def test_energy_is_the_share_of_the_map_on_the_defect() -> None:
    heat = np.ones((8, 8), np.float32)
    heat[MASK] = 5.0
    assert energy_in_mask(heat, MASK) == pytest.approx(20 / 80)


def test_negative_values_carry_no_energy() -> None:
    heat = np.where(MASK, 1.0, -10.0)
    assert energy_in_mask(heat, MASK) == 1.0
    assert energy_in_mask(-np.ones((8, 8)), MASK) == 0.0


def test_pointing_needs_the_highest_pixel_on_the_defect() -> None:
    heat = np.zeros((8, 8))
    heat[3, 3] = 2.0
    assert pointing_game(heat, MASK)
    heat[0, 0] = 3.0
    assert not pointing_game(heat, MASK)


@pytest.mark.parametrize("margin", [0.0, 1.0, 1.5, 2.9, 4.0])
def test_a_margin_lets_points_near_the_defect_pass(margin: float) -> None:
    """Every place of the one bright pixel, by its distance to the nearest pixel of the defect."""
    for row, column in np.ndindex(MASK.shape):
        heat = np.zeros(MASK.shape)
        heat[row, column] = 1.0
        apart = min(np.hypot(row - r, column - c) for r, c in np.argwhere(MASK))
        assert pointing_game(heat, grown(MASK, margin)) == (apart <= margin)


def test_without_a_defect_nothing_is_near() -> None:
    heat = np.zeros((8, 8))
    heat[3, 3] = 2.0
    near = grown(np.zeros((8, 8), bool), 4.0)
    assert not near.any()
    assert not pointing_game(heat, near)


def test_a_constant_map_points_nowhere() -> None:
    whole = np.zeros((8, 8), bool)
    whole[0, 0] = True
    assert not pointing_game(np.ones((8, 8)), whole)


def test_similarity_is_one_for_equal_order_and_zero_for_chance_or_constant_maps() -> None:
    rng = np.random.default_rng(0)
    heat = rng.normal(size=(40, 40))
    assert randomisation_similarity(heat, np.exp(heat)) == pytest.approx(1)
    assert randomisation_similarity(heat, -heat) == pytest.approx(-1)
    assert abs(randomisation_similarity(heat, rng.normal(size=(40, 40)))) < 0.1
    assert randomisation_similarity(heat, np.ones((40, 40))) == 0.0
