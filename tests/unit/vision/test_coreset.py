"""The coreset against plain greedy k-center."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from novad.vision.coreset import covering_radius, greedy_coreset, greedy_cover


def plain_greedy(points: np.ndarray, count: int, first: int) -> list[int]:
    chosen = [first]
    distances = np.linalg.norm(points - points[first], axis=1)
    while len(chosen) < count:
        farthest = int(distances.argmax())
        chosen.append(farthest)
        distances = np.minimum(distances, np.linalg.norm(points - points[farthest], axis=1))
    return chosen


def test_one_centre_per_pass_is_the_exact_greedy_choice() -> None:
    points = torch.randn(400, 6, generator=torch.Generator().manual_seed(0))
    chosen = greedy_coreset(points, 30, centres_per_pass=1, seed=3).chosen
    assert chosen.tolist() == plain_greedy(points.numpy(), 30, int(chosen[0]))


def test_many_centres_per_pass_cover_nearly_as_well_as_exact_greedy() -> None:
    points = torch.randn(6000, 8, generator=torch.Generator().manual_seed(1))
    exact = covering_radius(points, greedy_coreset(points, 200, centres_per_pass=1).chosen)
    batched = covering_radius(points, greedy_coreset(points, 200, centres_per_pass=32).chosen)
    assert batched <= 1.05 * exact


def test_covering_radius_is_the_largest_distance_to_a_chosen_point() -> None:
    points = torch.randn(500, 5, generator=torch.Generator().manual_seed(2))
    chosen = np.array([3, 77, 400])
    brute = torch.cdist(points, points[chosen]).amin(dim=1).max()
    assert covering_radius(points, chosen) == pytest.approx(float(brute), rel=1e-4)


@settings(max_examples=25, deadline=None)
@given(total=st.integers(1, 60), count=st.integers(1, 80), seed=st.integers(0, 5))
def test_no_patch_is_chosen_twice_and_all_are_when_asked_for_more(total: int, count: int, seed: int) -> None:
    points = torch.randn(total, 3, generator=torch.Generator().manual_seed(seed))
    chosen = greedy_coreset(points, count, centres_per_pass=7, candidates=9, seed=seed).chosen
    assert len(set(chosen.tolist())) == len(chosen) == min(total, count)


def test_equal_patches_do_not_stop_the_search() -> None:
    chosen = greedy_coreset(torch.ones(50, 4), 10).chosen
    assert len(set(chosen.tolist())) == 10


def test_a_coreset_tells_its_covering_radius() -> None:
    points = torch.randn(500, 5, generator=torch.Generator().manual_seed(4))
    coreset = greedy_coreset(points, 40)
    assert coreset.radius == pytest.approx(covering_radius(points, coreset.chosen), rel=1e-3)
    assert greedy_coreset(points, 500).radius == 0


def test_covering_from_given_vectors_goes_on_as_greedy_would_and_ends_at_the_radius() -> None:
    points = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    whole = greedy_coreset(points, 60, centres_per_pass=1)
    given = torch.cdist(points, points[whole.chosen[:20]]).amin(1)
    for per_pass in (1, 8):
        more = greedy_cover(points, given, whole.radius, centres_per_pass=per_pass, candidates=300)
        assert more.tolist() == whole.chosen[20:].tolist()
    assert greedy_cover(points, given, float(given.max())).tolist() == []
