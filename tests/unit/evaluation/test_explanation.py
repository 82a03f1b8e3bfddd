"""Explanation quality on maps whose quality is known."""

import numpy as np
import pytest

from novad.evaluation.explanation import (
    deletion_insertion,
    energy_in_mask,
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


def image_with_bright_defect() -> np.ndarray:
    image = np.zeros((8, 8, 3), np.uint8)
    image[MASK] = 200
    return image


def brightness_on_defect(image: np.ndarray) -> float:
    return float(image[MASK].mean()) / 200


def test_a_faithful_map_deletes_early_and_inserts_early() -> None:
    image = image_with_bright_defect()
    good = deletion_insertion(image, MASK.astype(float), brightness_on_defect, 16)
    bad = deletion_insertion(image, -MASK.astype(float), brightness_on_defect, 16)
    assert good[0] < 0.1 < 0.9 < bad[0]
    assert good[1] > 0.9 > 0.15 > bad[1]


def test_areas_are_trapezoids_over_the_share_of_pixels() -> None:
    seen: list[np.ndarray] = []

    def score(image: np.ndarray) -> float:
        seen.append(image)
        return float(len(seen) % 2)  # 1 for every deletion, 0 for every insertion

    image = image_with_bright_defect()
    heat = np.random.default_rng(0).random((8, 8))
    assert deletion_insertion(image, heat, score, 4) == (1.0, 0.0)
    assert len(seen) == 10
    assert all(each.dtype == image.dtype for each in seen)
    np.testing.assert_array_equal(seen[0], image)  # nothing deleted
    np.testing.assert_array_equal(seen[-1], image)  # all inserted
    changed = [(each != image).any(axis=2).sum() for each in seen[::2]]
    assert changed == [0, 16, 32, 48, 64]
