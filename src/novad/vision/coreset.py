"""Greedy k-center coreset, many centres per pass."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Coreset", "covering_radius", "greedy_coreset", "greedy_cover"]

BLOCK = 8192


@dataclass(frozen=True)
class Coreset:
    """Patches that stand for all.

    Attributes:
        chosen: (k,) positions in the order of choice.
        radius: largest distance from a patch to its nearest chosen one, in feature units.
    """

    chosen: NDArray[np.int64]
    radius: float


def greedy_coreset(
    patches: Tensor, count: int, centres_per_pass: int = 64, candidates: int = 256, seed: int = 0
) -> Coreset:
    """``count`` patches that leave no patch far from its nearest chosen one.

    Greedy k-center (Gonzalez 1985; Sener and Savarese 2018) picks the farthest patch, updates every distance
    and repeats: one pass over all patches per centre. Here a pass serves ``centres_per_pass`` centres, picked
    greedily among the farthest ``candidates``, whose distances to one another are kept up to date inside the
    pass. With one centre per pass the choice is the exact greedy one.

    Args:
        patches: (n, d) features, any float type; read in blocks as float32.
        count: how many to choose; n or more chooses all.
        centres_per_pass: centres added between two passes over all patches.
        candidates: farthest patches among which a pass picks.
        seed: of the first centre.
    Returns:
        min(count, n) patches and how far they leave the others.
    """
    total = len(patches)
    if count >= total:
        return Coreset(np.arange(total), 0.0)
    first = [int(np.random.default_rng(seed).integers(total))]
    norms = _squared_norms(patches)
    distances = torch.full((total,), float("inf"))
    _shrink(distances, patches, norms, first)
    rest = _greedy(distances, patches, norms, count - 1, -float("inf"), centres_per_pass, candidates)
    return Coreset(np.asarray(first + rest), float(distances.max().clamp_min(0).sqrt()))


def greedy_cover(
    patches: Tensor, distances: Tensor, radius: float, centres_per_pass: int = 64, candidates: int = 256
) -> NDArray[np.int64]:
    """Indices of patches that, beside vectors chosen before, leave no patch farther than ``radius``.

    Greedy as in ``greedy_coreset``, but it goes on from given vectors and ends by distance: every chosen
    patch was farther than ``radius`` from all vectors chosen before it.

    Args:
        patches: (n, d) features, any float type.
        distances: (n,) Euclidean, of each to the nearest vector chosen before.
        radius: in feature units.
        centres_per_pass: centres added between two passes over all patches.
        candidates: farthest patches among which a pass picks.
    Returns:
        (m,) positions in the order of choice; none where all are near already.
    """
    squared, norms = distances.float().square(), _squared_norms(patches)
    chosen = _greedy(squared, patches, norms, len(patches), radius**2, centres_per_pass, candidates)
    return np.asarray(chosen, np.int64)


def covering_radius(patches: Tensor, chosen: NDArray[np.int64]) -> float:
    """Largest distance from a patch to its nearest chosen one, in feature units."""
    norms = _squared_norms(patches)
    distances = torch.full((len(patches),), float("inf"))
    for start in range(0, len(chosen), 256):
        _shrink(distances, patches, norms, chosen[start : start + 256].tolist())
    return float(distances.max().clamp_min(0).sqrt())


def _squared_norms(patches: Tensor) -> Tensor:
    blocks = torch.split(patches, BLOCK)
    return torch.cat([block.float().square().sum(1) for block in blocks])


def _greedy(
    distances: Tensor,
    patches: Tensor,
    norms: Tensor,
    count: int,
    limit: float,
    per_pass: int,
    candidates: int,
) -> list[int]:
    """At most ``count`` more centres, while a patch is farther than ``limit``; squared, lowered in place."""
    chosen: list[int] = []
    while len(chosen) < count and distances.max() > limit:
        room = min(per_pass, count - len(chosen))
        batch = _farthest_apart(distances, patches, room, max(candidates, room), limit)
        _shrink(distances, patches, norms, batch)
        chosen += batch
    return chosen


def _farthest_apart(
    distances: Tensor, patches: Tensor, room: int, candidates: int, limit: float
) -> list[int]:
    """Exact greedy among the farthest patches; ``distances`` are squared, to the centres chosen so far."""
    left, pool = distances.topk(min(candidates, len(distances)))
    among = patches[pool].float()
    between = torch.cdist(among, among).square()
    picked: list[int] = []
    while len(picked) < room and left.max() > limit:
        at = int(left.argmax())
        picked.append(int(pool[at]))
        left = torch.minimum(left, between[at])
        left[at] = -1.0
    return picked


def _shrink(distances: Tensor, patches: Tensor, norms: Tensor, centres: list[int]) -> None:
    """Lower ``distances`` (squared, in place) to those to new ``centres``."""
    points = patches[centres].float()
    own = norms[centres]
    for start in range(0, len(patches), BLOCK):
        block = slice(start, start + BLOCK)
        products = patches[block].float() @ points.T
        nearest = products.mul_(-2).add_(own).amin(dim=1).add_(norms[block])
        torch.minimum(distances[block], nearest, out=distances[block])
    distances[centres] = -1.0
