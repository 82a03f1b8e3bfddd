"""Suspicion: laws of the ranking of bank images."""

import numpy as np
import pytest
import torch
from scipy.stats import median_abs_deviation

from novad.vision.memory_bank import fit_memory_bank
from novad.vision.suspicion import Suspicions, suspicions


def _grids(images: int = 12, odd: int | None = None) -> list[torch.Tensor]:
    drawn = torch.randn(images, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    if odd is not None:
        drawn[odd, :, 2, 3] += 30.0
    return list(drawn)


def _suspicions(grids: list[torch.Tensor], vectors: int = 60, smoothing: float = 0.0) -> Suspicions:
    bank = fit_memory_bank(
        grids,
        len(grids),
        coreset_share=0.01,
        min_vectors=vectors,
        max_vectors=vectors,
        dimensions=0,
        whiten=True,
    )
    return suspicions(bank, grids, 0.01, smoothing)


@pytest.mark.parametrize("odd", [0, 5, 11])
def test_image_with_an_odd_spot_ranks_first_and_its_spot_is_named(odd: int) -> None:
    found = _suspicions(_grids(odd=odd))
    assert found.ranking()[0] == odd
    assert found.places[odd].tolist() == [2, 3]
    assert found.nearest[odd] != odd


def test_an_image_never_vouches_for_itself() -> None:
    grids = _grids(4, odd=2)
    bank = fit_memory_bank(
        grids, 4, coreset_share=1.0, min_vectors=1, max_vectors=1000, dimensions=0, whiten=False
    )
    bank.usual = None
    found = suspicions(bank, grids, 0.01, 0.0)
    flat = [grid.reshape(6, -1).T for grid in grids]
    for image, patches in enumerate(flat):
        others = torch.cat([each for at, each in enumerate(flat) if at != image])
        expected = torch.cdist(patches, others).amin(1).max()
        assert found.distances[image] == pytest.approx(float(expected), rel=0.01)


def test_a_single_image_has_nothing_to_be_suspected_against() -> None:
    found = _suspicions(_grids(1))
    assert found.scores.tolist() == [0.0]
    assert found.nearest.tolist() == [0]


def test_share_of_the_most_suspicious_rounds_down() -> None:
    found = _suspicions(_grids(12, odd=7))
    assert found.most(0.0).tolist() == []
    assert found.most(0.05).tolist() == []
    assert found.most(0.1).tolist() == [7]
    assert len(found.most(0.2)) == 2


def test_equal_banks_give_equal_suspicions() -> None:
    first, second = _suspicions(_grids(), smoothing=1.0), _suspicions(_grids(), smoothing=1.0)
    np.testing.assert_array_equal(first.distances, second.distances)


def test_scores_are_robust_z_which_an_odd_image_hardly_moves() -> None:
    found = _suspicions(_grids(odd=7))
    spread = median_abs_deviation(found.distances, scale="normal")
    np.testing.assert_allclose(
        found.scores, (found.distances - np.median(found.distances)) / spread, rtol=1e-4
    )
