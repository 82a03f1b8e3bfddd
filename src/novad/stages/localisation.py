"""Which novelty map shows defects best, judged by masks of the tuning split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from novad.stages.map_weight import pixel_auroc
from novad.stages.masked_images import MaskedImages
from novad.stages.patch_lessons import LearnedMap
from novad.vision.candidates import CandidateGrid, Fits
from novad.vision.explainers import Explainer
from novad.vision.novelty import Candidate, deviation, map_step, statistic_maps
from novad.vision.pooling import resize_maps, smooth
from novad.vision.preprocess import images_at_once

__all__ = ["ShownMap", "best_map"]


@dataclass(frozen=True)
class ShownMap:
    """One way to show novelty.

    Attributes:
        candidate: its name.
        maps: (N, h, w) raw, of the masked images, or (2 N, h, w), see ``LearnedMap``; None without masks.
        learned: how it was learned; None where no label taught it.
    """

    candidate: Candidate
    maps: Tensor | None = None
    learned: LearnedMap | None = None


def best_map(
    explainer: Explainer,
    grid: CandidateGrid,
    fits: Fits,
    target: str,
    masked: MaskedImages | None,
    remembered: Sequence[ShownMap],
) -> ShownMap:
    """The map that ranks defective positions highest, of the memory's and every deviation of the explanation.

    Without masks it is that of appearance. Where appearance is not known either, it is the deviation of the
    contribution, which is what the explanation divides among the pixels, from normal images at the same
    place, in either direction.

    Args:
        explainer: of the explained network.
        grid: deviations of the explanation.
        fits: distribution of its statistics over normal images.
        target: explained layer or layers.
        masked: defects whose place is known.
        remembered: what the memory shows of them, appearance first; empty where that is not known.
    """
    if masked is None or not masked.masks.any():
        smoothing = max(grid.smoothing)
        contribution = Candidate(target, grid.computed[0], smoothing, True, "both", min(grid.top_shares))
        return remembered[0] if remembered else ShownMap(contribution)
    size = (masked.images.shape[-2], masked.images.shape[-1])
    step = map_step(size)
    statistics = torch.cat(
        [
            statistic_maps(explainer.explain(images, target), grid.computed, step)
            for images in torch.split(masked.images, images_at_once(size))
        ]
    )
    masks = masked.masks
    return max(
        chain(remembered, _explained_maps(grid, fits, target, statistics)),
        key=lambda each: 0.0 if each.maps is None else _shows(each.maps, masks),
    )


def _shows(maps: Tensor, masks: Tensor) -> float:
    """How well maps show the defects, each map of an image counting alike."""
    size = (masks.shape[-2], masks.shape[-1])
    return pixel_auroc(resize_maps(maps, size), masks.repeat(len(maps) // len(masks), 1, 1))


def _explained_maps(grid: CandidateGrid, fits: Fits, target: str, statistics: Tensor) -> Iterator[ShownMap]:
    """Every deviation of ``target`` with its maps, one at a time."""
    for smoothing in grid.smoothing:
        smoothed, normal = smooth(statistics, smoothing), fits[target, smoothing]
        for statistic, located, side in grid.kinds():
            candidate = Candidate(target, statistic, smoothing, located, side, min(grid.top_shares))
            yield ShownMap(candidate, deviation(smoothed, grid.computed, normal, statistic, located, side))
