"""Familiarity: how far an image's patches lie from the memory bank of normal ones."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from novad.vision.memory_bank import MemoryBank
from novad.vision.patch_features import NEIGHBOURHOOD, global_features, patch_features
from novad.vision.pooling import smooth, top_means

__all__ = ["FamiliarityScores", "familiarity_scores", "feature_grids"]


@dataclass(frozen=True)
class FamiliarityScores:
    """Raw familiarity of N images, in feature units.

    Attributes:
        scores: (N,) mean distance of the least familiar patches.
        distances: (N, h, w) of every patch to the bank, less what is usual at its place, smoothed.
        nearest: (N, h, w) position in the bank of the nearest vector.
        patches: (N, h, w, D) what was compared, in the bank's space.
    """

    scores: Tensor
    distances: Tensor
    nearest: Tensor
    patches: Tensor


def feature_grids(
    features: Mapping[str, Tensor], anomaly_type: str, neighbourhood: int = NEIGHBOURHOOD
) -> Tensor:
    """What is compared: patches for sensory anomalies, one embedding per image for semantic ones.

    Args:
        features: (N, C_l, H_l, W_l) per layer.
        anomaly_type: ``sensory``, ``semantic_near`` or ``semantic_far``.
        neighbourhood: see ``patch_features``.

    Returns:
        (N, C, h, w); h = w = 1 for semantic anomalies.
    """
    return patch_features(features, neighbourhood) if anomaly_type == "sensory" else global_features(features)


def familiarity_scores(
    bank: MemoryBank,
    grids: Tensor,
    neighbours: int,
    top_share: float,
    smoothing: float = 0.0,
    own: NDArray[np.int32] | None = None,
) -> FamiliarityScores:
    """Score (N, C, h, w) feature grids against the bank.

    Args:
        bank: normal vectors.
        grids: from ``feature_grids``.
        neighbours: nearest vectors whose distances are averaged.
        top_share: share of patches that the image score averages.
        smoothing: Gaussian sigma in patches; one odd patch alone then says less than several together.
        own: (N,) numbers of bank images; each is compared with the nearest vector of another image.
    """
    patches = bank.patches(grids)
    raw, nearest = bank.search(patches, neighbours) if own is None else bank.search_foreign(patches, own)
    placed = raw if bank.usual is None else bank.usual(raw)
    distances = smooth(placed[:, None], smoothing)[:, 0]
    return FamiliarityScores(top_means(distances, [top_share])[:, 0], distances, nearest, patches)
