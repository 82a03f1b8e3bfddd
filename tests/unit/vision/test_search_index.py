"""The search index against brute force."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from novad.config import MemoryBankSettings
from novad.vision.memory_bank import MemoryBank
from novad.vision.patch_store import Whitening
from novad.vision.search_index import EXACT_UP_TO, VectorIndex

Floats = NDArray[np.float32]


def clustered(count: int, seed: int, dimensions: int = 12) -> Floats:
    """Points around 40 centres that are the same whatever the seed."""
    centres = np.random.default_rng(0).normal(scale=3, size=(40, dimensions))
    rng = np.random.default_rng(seed)
    drawn = centres[rng.integers(0, 40, count)] + rng.normal(size=(count, dimensions))
    return drawn.astype(np.float32)


def brute(queries: Floats, vectors: Floats, neighbours: int) -> tuple[Floats, NDArray[np.int64]]:
    squared = ((queries[:, None].astype(np.float64) - vectors[None]) ** 2).sum(2)
    nearest = squared.argsort(axis=1, kind="stable")[:, :neighbours]
    return np.take_along_axis(squared, nearest, 1).astype(np.float32), nearest


def bank(vectors: Floats, origins: NDArray[np.int32], exact_up_to: int) -> MemoryBank:
    size = vectors.shape[1]
    whitening = Whitening(torch.zeros(size), torch.eye(size))
    return MemoryBank(whitening, torch.from_numpy(vectors), origins, exact_up_to=exact_up_to)


def test_few_vectors_are_searched_exactly() -> None:
    vectors, queries = clustered(3000, 1), clustered(200, 2)
    index = VectorIndex(vectors, exact_up_to=3000)
    assert index.lists == (0, 0)
    squared, nearest = index.search(torch.from_numpy(queries), 5)
    expected, positions = brute(queries, vectors, 5)
    assert np.allclose(squared, expected, atol=1e-3)
    assert np.array_equal(nearest, positions)


def test_the_largest_bank_of_default_settings_is_searched_exactly() -> None:
    assert MemoryBankSettings().max_vectors <= EXACT_UP_TO


def test_many_vectors_are_searched_in_part_and_99_of_100_nearest_are_found() -> None:
    vectors, queries = clustered(5000, 1), clustered(200, 2)
    index = VectorIndex(vectors, exact_up_to=4999)
    searched, lists = index.lists
    assert lists == round(2 * 5000**0.5)
    assert 1 <= searched <= lists / 4
    squared, nearest = (each.numpy() for each in index.search(torch.from_numpy(queries), 16))
    _, positions = brute(queries, vectors, 16)
    assert (nearest[:, 0] == positions[:, 0]).mean() >= 0.99
    found = [len(set(a) & set(b)) / 16 for a, b in zip(nearest, positions, strict=True)]
    assert np.mean(found) >= 0.98
    assert np.allclose(squared[:, 0], ((queries - vectors[nearest[:, 0]]) ** 2).sum(1), atol=1e-3)
    assert (np.diff(squared, axis=1) >= 0).all()


def test_vectors_without_structure_are_searched_in_more_lists() -> None:
    """In 60 dimensions of noise nothing is near: then nearly all lists must be gone through."""
    noise = np.random.default_rng(3).normal(size=(2000, 60)).astype(np.float32)
    searched, lists = VectorIndex(noise, exact_up_to=100).lists
    assert searched > lists / 4


def test_equal_vectors_give_equal_indices() -> None:
    vectors, queries = clustered(4000, 1), torch.from_numpy(clustered(300, 2))
    first, second = (VectorIndex(vectors, exact_up_to=100) for _ in range(2))
    assert first.lists == second.lists
    # So many neighbours are not all in the lists that are searched: other lists would give others.
    for one, other in zip(first.search(queries, 300), second.search(queries, 300), strict=True):
        assert np.array_equal(one, other)


def test_a_query_whose_lists_hold_too_few_vectors_goes_through_all() -> None:
    vectors = clustered(1000, 1)
    index = VectorIndex(vectors, exact_up_to=100)
    assert index.lists[0] < index.lists[1]
    _, nearest = index.search(torch.from_numpy(clustered(2, 2)), 1000)
    assert np.array_equal(np.sort(nearest, axis=1), np.tile(np.arange(1000), (2, 1)))


@pytest.mark.parametrize("neighbours", [1, 3])
def test_a_bank_answers_by_lists_as_it_does_exactly(neighbours: int) -> None:
    vectors = clustered(4000, 1)
    origins = np.stack([np.arange(4000) // 20, *np.zeros((2, 4000), int)], 1).astype(np.int32)
    exact, listed = bank(vectors, origins, 4000), bank(vectors, origins, 100)
    assert exact.lists == (0, 0) != listed.lists
    patches = torch.from_numpy(clustered(300, 2)).reshape(1, 15, 20, 12)
    for one, other in zip(exact.search(patches, neighbours), listed.search(patches, neighbours), strict=True):
        assert np.isclose(np.asarray(one), np.asarray(other), atol=1e-3).mean() >= 0.98


def test_the_nearest_foreign_vector_is_found_by_lists_too() -> None:
    vectors = clustered(4000, 1)
    origins = np.stack([np.arange(4000) // 2, *np.zeros((2, 4000), int)], 1).astype(np.int32)
    listed = bank(vectors, origins, 100)
    asked = np.arange(0, 4000, 10)
    own = origins[asked, 0]
    distances, places = listed.nearest_foreign(torch.from_numpy(vectors[asked]), own)
    squared = ((vectors[asked][:, None] - vectors[None]) ** 2).sum(2)
    squared[origins[None, :, 0] == own[:, None]] = np.inf
    assert (places == squared.argmin(1)).mean() >= 0.98
    assert np.isclose(distances, np.sqrt(squared.min(1)), atol=1e-3).mean() >= 0.98
    assert (origins[places, 0] != own).all()
