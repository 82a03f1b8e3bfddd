"""Nearest vectors of a bank: exact while they are few or on a GPU, by inverted lists once they are many."""

from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["EXACT_UP_TO", "DeviceIndex", "VectorIndex", "build_index"]

# Lists win long before; up to here a search costs little, and scores stay exact (docs/research/scale.md).
EXACT_UP_TO = 50_000
# This share of a vector's nearest others must be found.
RECALL = 0.99
NEAREST = 16
ASKED = 1000
# Patches of other images are farther from the bank than its own vectors from one another, least so where many
# of these are alike: they go through more lists.
MARGIN = 2
FEWEST_LISTS = 16
TRAINED_PER_LIST = 64
# Distances that a GPU holds at once: a quarter of a gibibyte.
DISTANCES_AT_ONCE = 1 << 26

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]


class VectorIndex:
    """Euclidean search over fixed vectors.

    More than ``exact_up_to`` of them are sorted into lists around k-means centres, twice the square root of
    their count, and a query goes through the nearest lists only (Sivic and Zisserman 2003). Through how many
    is settled here: doubled until vectors of the bank find 99 % of their nearest 16 others, then once more,
    and at least 16. The same vectors give the same index.

    Args:
        vectors: (n, D) float32.
        exact_up_to: so many vectors are searched one by one.
    """

    def __init__(self, vectors: Floats, exact_up_to: int = EXACT_UP_TO) -> None:
        self._vectors = vectors
        self._lists = round(2 * len(vectors) ** 0.5) if len(vectors) > exact_up_to else 0
        self._index = _trained(vectors, self._lists)
        self._index.add(vectors)
        if self._lists:
            self._settle_lists_to_search()

    @property
    def lists(self) -> tuple[int, int]:
        """How many lists a query goes through, and how many there are; zeros where search is exact."""
        return (self._index.nprobe, self._lists) if self._lists else (0, 0)

    def search(self, queries: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
        """Squared distances to the nearest vectors, and which they are.

        Args:
            queries: (q, D) float32.
            neighbours: at most n.
        Returns:
            (q, neighbours) each, nearest first, where the queries lie.
        """
        asked = queries.numpy()
        squared, nearest = self._index.search(asked, neighbours)
        if self._lists and (short := nearest[:, -1] < 0).any():
            # The lists of these queries hold fewer vectors than were asked for.
            squared[short], nearest[short] = faiss.knn(asked[short], self._vectors, neighbours)
        return torch.from_numpy(squared), torch.from_numpy(nearest)

    def _settle_lists_to_search(self) -> None:
        """With a margin, the fewest lists, doubled from one, in which vectors find their nearest others."""
        count = len(self._vectors)
        sample = self._vectors[np.linspace(0, count - 1, min(ASKED, count)).astype(int)]
        neighbours = min(NEAREST + 1, count)  # the vector itself is one of them
        _, exact = faiss.knn(sample, self._vectors, neighbours)
        self._index.nprobe = 1
        while self._index.nprobe < self._lists:
            _, found = self._index.search(sample, neighbours)
            if _recall(found[:, 1:], exact[:, 1:]) >= RECALL:
                break
            self._index.nprobe = min(2 * self._index.nprobe, self._lists)
        self._index.nprobe = min(max(MARGIN * self._index.nprobe, FEWEST_LISTS), self._lists)


class DeviceIndex:
    """Exact Euclidean search where the vectors lie: |q|^2 - 2 <q, v> + |v|^2, block by block of queries.

    Args:
        vectors: (n, D) float32.
    """

    lists = (0, 0)

    def __init__(self, vectors: Tensor) -> None:
        self._vectors, self._squares = vectors, vectors.square().sum(1)

    def search(self, queries: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
        """As ``VectorIndex.search``; the queries lie where the vectors do."""
        found = [
            self._nearest(block, neighbours)
            for block in torch.split(queries, max(1, DISTANCES_AT_ONCE // len(self._vectors)))
        ]
        squared, nearest = zip(*found, strict=True)
        return torch.cat(squared), torch.cat(nearest)

    def _nearest(self, queries: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
        squared = torch.addmm(self._squares, queries, self._vectors.T, alpha=-2)
        if neighbours == 1:  # A GPU's top k goes through all distances several times.
            values, indices = squared.min(dim=1, keepdim=True)
        else:
            values, indices = squared.topk(neighbours, largest=False)
        return values + queries.square().sum(1, keepdim=True), indices


def build_index(vectors: Tensor, exact_up_to: int = EXACT_UP_TO) -> VectorIndex | DeviceIndex:
    """The index of (n, D) float32 vectors for the memory that they lie in."""
    return VectorIndex(vectors.numpy(), exact_up_to) if vectors.device.type == "cpu" else DeviceIndex(vectors)


def _trained(vectors: Floats, lists: int) -> Any:
    """An index by so many lists, or without any, that holds no vector yet."""
    flat = faiss.IndexFlatL2(vectors.shape[1])
    if not lists:
        return flat
    index: Any = faiss.IndexIVFFlat(flat, vectors.shape[1], lists)
    index.cp.seed = 0
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = TRAINED_PER_LIST
    index.train(vectors)
    return index


def _recall(found: Positions, exact: Positions) -> float:
    """Share of each query's exact neighbours that were found."""
    return float((exact[:, :, None] == found[:, None, :]).any(axis=2).mean())
