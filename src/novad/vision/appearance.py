"""Appearance: what patches look like in the input, whatever the network makes of it.

The nearest normal vector says which normal patch an image should look like there. What differs in the pixels
all the same was nothing to the network: a feature that it never learned.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from novad.vision.novelty import APPEARANCE, JOINT, Candidate, NormalStatistics, StatisticMoments, deviation
from novad.vision.patch_features import NEIGHBOURHOOD, local_average
from novad.vision.pooling import smooth

__all__ = [
    "AppearanceNovelty",
    "appearance",
    "appearance_candidate",
    "fit_appearance_novelty",
    "vector_appearance",
]

SMOOTHING = 1.0
_AT_ONCE = 8


def appearance(images: Tensor, shape: tuple[int, int], neighbourhood: int = NEIGHBOURHOOD) -> Tensor:
    """Mean colour, contrast of each colour, and strength of edges across and down, patch by patch.

    Args:
        images: (N, 3, H, W) in [0, 1].
        shape: h, w of the patches.
        neighbourhood: side of the square that each is averaged over, whatever features are averaged over:
            single patches of a calm texture look different by chance (docs/research/familiarity.md).
    Returns:
        (N, 8, h, w) in units of the images.
    """
    grey = images.mean(1, keepdim=True)
    across = F.pad(grey.diff(dim=3).abs(), (0, 1))
    down = F.pad(grey.diff(dim=2).abs(), (0, 0, 0, 1))
    pooled = F.adaptive_avg_pool2d(torch.cat([images, images.square(), across, down], dim=1), shape)
    near = local_average(pooled, neighbourhood)
    colour, square, edges = near[:, :3], near[:, 3:6], near[:, 6:]
    contrast = (square - colour.square()).clamp_min(0).sqrt()
    return torch.cat([colour, contrast, edges], dim=1)


def vector_appearance(
    batches: Iterable[Tensor], origins: NDArray[np.int32], shape: tuple[int, int]
) -> Tensor:
    """What the patches looked like that a bank's vectors were seen at.

    Args:
        batches: (N, 3, H, W) in [0, 1], all images of the bank in their order.
        origins: (k, 3) image, row and column of each vector.
        shape: h, w of the patches.
    Returns:
        (k, 8).
    """
    looks, first = torch.zeros(len(origins), 8), 0
    for images in batches:
        seen = appearance(images, shape)
        at = np.flatnonzero((origins[:, 0] >= first) & (origins[:, 0] < first + len(images)))
        number, row, column = torch.from_numpy(origins[at].astype(np.int64)).unbind(1)
        looks[torch.from_numpy(at)] = seen[number - first, :, row, column]
        first += len(images)
    return looks


@dataclass(frozen=True)
class AppearanceNovelty:
    """How unusually unlike their nearest normal patches the patches of an image look, from place to place.

    Attributes:
        differences: distribution of the eight smoothed differences over normal images, per place.
        together: of the same in standard deviations of their place; knows how they go together.
        distances: of their Mahalanobis distance, per place.
    """

    differences: NormalStatistics
    together: NormalStatistics
    distances: NormalStatistics

    def __call__(self, differences: Tensor) -> Tensor:
        """Novelty maps (N, h, w), in standard deviations of their place, of (N, 8, h, w) differences."""
        placed = _placed(smooth(differences, SMOOTHING), self.differences)
        return _placed(_distance(placed, self.together), self.distances)[:, 0]


def fit_appearance_novelty(differences: Tensor) -> AppearanceNovelty:
    """What differences are usual.

    Args:
        differences: (n, 8, h, w) of normal images, none of which was matched with a patch of its own.
    Raises:
        CalibrationError: fewer than two images.
    """
    parts = torch.split(differences, _AT_ONCE)
    first = _fit(smooth(part, SMOOTHING) for part in parts)

    def placed() -> Iterable[Tensor]:
        return (_placed(smooth(part, SMOOTHING), first) for part in parts)

    together = _fit(placed())
    return AppearanceNovelty(first, together, _fit(_distance(part, together) for part in placed()))


def appearance_candidate(top_share: float) -> Candidate:
    """The name of appearance among the ways to ask for novelty."""
    return Candidate(APPEARANCE, JOINT, SMOOTHING, located=True, side="high", top_share=top_share)


def _fit(batches: Iterable[Tensor]) -> NormalStatistics:
    moments = StatisticMoments()
    for maps in batches:
        moments.add(maps)
    return moments.finish()


def _placed(maps: Tensor, normal: NormalStatistics) -> Tensor:
    return (maps - normal.mean) / normal.spread


def _distance(placed: Tensor, together: NormalStatistics) -> Tensor:
    """(N, 1, h, w) Mahalanobis distance."""
    return deviation(placed, (), together, JOINT, located=False, side="high")[:, None]
