"""Familiarity: how far an image's patches lie from the memory bank of normal ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.errors import CalibrationError
from novad.vision.memory_bank import MemoryBank
from novad.vision.patch_features import NEIGHBOURHOOD, global_features, patch_features
from novad.vision.places import moved_back
from novad.vision.pooling import resize_maps, smooth, top_means

__all__ = ["FamiliarityScores", "familiarity_scores", "feature_grids", "joined"]


@dataclass(frozen=True)
class FamiliarityScores:
    """Raw familiarity of N images, in units of the features.

    Attributes:
        scores: (N,) mean distance of the least familiar patches.
        distances: (N, h, w) of every patch to the bank, less what is usual at its place, smoothed; of several
            banks, mean of the standard deviations.
        nearest: (N, h, w) position in the bank of the nearest vector.
        patches: (N, h, w, D) what was compared, in the bank's space.
        maps: (N, h, w) the distances where in the image they are: features lie a little beside it.
    """

    scores: Tensor
    distances: Tensor
    nearest: Tensor
    patches: Tensor
    maps: Tensor


def feature_grids(
    features: Mapping[str, Tensor],
    anomaly_type: str,
    neighbourhood: int = NEIGHBOURHOOD,
    layers: Sequence[str] = (),
) -> Tensor:
    """What is compared: patches for sensory anomalies, one embedding per image for semantic ones.

    Args:
        features: (N, C_l, H_l, W_l) per layer.
        anomaly_type: ``sensory``, ``semantic_near`` or ``semantic_far``.
        neighbourhood: see ``patch_features``.
        layers: which of the features; by default all.

    Returns:
        (N, C, h, w); h = w = 1 for semantic anomalies.
    """
    named = {name: features[name] for name in layers or features}
    return patch_features(named, neighbourhood) if anomaly_type == "sensory" else global_features(named)


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
    maps = distances if bank.displacement is None else moved_back(distances, bank.displacement)
    return FamiliarityScores(top_means(distances, [top_share])[:, 0], distances, nearest, patches, maps)


def joined(banks: Sequence[MemoryBank], found: Sequence[FamiliarityScores]) -> FamiliarityScores:
    """What several banks say about the same images: means of scores and maps, each on the scale of its bank.

    Args:
        banks: the one whose nearest vectors count first; all know their scale and what is usual.
        found: by each.
    Raises:
        CalibrationError: a bank does not know what is normal in it.
    """
    size = (found[0].distances.shape[-2], found[0].distances.shape[-1])
    scores, distances, maps = list[Tensor](), list[Tensor](), list[Tensor]()
    for bank, each in zip(banks, found, strict=True):
        if bank.scale is None or bank.usual is None:
            raise CalibrationError("a bank that is asked beside another does not know how its images score")
        scores.append((each.scores - bank.scale[0]) / bank.scale[1])
        distances.append(resize_maps(bank.usual.deviations(each.distances), size))
        maps.append(resize_maps(bank.usual.deviations(each.maps), size))
    score, distance, heat = (torch.stack(each).mean(dim=0) for each in (scores, distances, maps))
    return replace(found[0], scores=score, distances=distance, maps=heat)
