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
# Figures of a patch alone; those that follow compare it with its surroundings.
ALONE = 8
FIGURES = ALONE + 3
# Gaussian sigma of the surroundings, in patches (docs/research/evidence.md).
SURROUNDINGS = 3.0
_AT_ONCE = 8


def appearance(images: Tensor, shape: tuple[int, int], neighbourhood: int = NEIGHBOURHOOD) -> Tensor:
    """Mean colour, contrast of each colour, strength of edges across and down, and colour less that around.

    How light a place is differs from image to image with the lamp and the thread; how much lighter than its
    surroundings it is does not: a faint stain shows in the last three figures.

    Args:
        images: (N, 3, H, W) in [0, 1].
        shape: h, w of the patches.
        neighbourhood: side of the square that each is averaged over, whatever features are averaged over:
            single patches of a calm texture look different by chance (docs/research/familiarity.md).
    Returns:
        (N, 11, h, w) in units of the images.
    """
    grey = images.mean(1, keepdim=True)
    across = F.pad(grey.diff(dim=3).abs(), (0, 1))
    down = F.pad(grey.diff(dim=2).abs(), (0, 0, 0, 1))
    pooled = F.adaptive_avg_pool2d(torch.cat([images, images.square(), across, down], dim=1), shape)
    near = local_average(pooled, neighbourhood)
    colour, square, edges = near[:, :3], near[:, 3:6], near[:, 6:]
    contrast = (square - colour.square()).clamp_min(0).sqrt()
    return torch.cat([colour, contrast, edges, colour - smooth(pooled[:, :3], SURROUNDINGS)], dim=1)


def vector_appearance(
    batches: Iterable[Tensor], origins: NDArray[np.int32], shape: tuple[int, int]
) -> Tensor:
    """What the patches looked like that a bank's vectors were seen at.

    Args:
        batches: (N, 3, H, W) in [0, 1], all images of the bank in their order.
        origins: (k, 3) image, row and column of each vector.
        shape: h, w of the patches.
    Returns:
        (k, 11).
    """
    looks, first = torch.zeros(len(origins), FIGURES), 0
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
        differences: distribution of the smoothed differences over normal images, per place.
        together: of those of patches alone, in standard deviations of their place: how they go together.
        distances: of the Mahalanobis distances, per place.
        around: as ``together``, of those that compare patches with their surroundings; None where a detector
            of before knows none.
    """

    differences: NormalStatistics
    together: NormalStatistics
    distances: NormalStatistics
    around: NormalStatistics | None = None

    def __call__(self, differences: Tensor) -> Tensor:
        """Novelty maps (N, h, w), in standard deviations of their place, of (N, 11, h, w) differences.

        Patches alone and against their surroundings have a distance each, which are averaged: in one, what
        differs with the light would hide what does not.
        """
        placed = _placed(smooth(differences, SMOOTHING), self.differences)
        return _placed(_distances(placed, self.together, self.around), self.distances).mean(1)


def fit_appearance_novelty(differences: Tensor) -> AppearanceNovelty:
    """What differences are usual.

    Args:
        differences: (n, 11, h, w) of normal images, none of which was matched with a patch of its own.
    Raises:
        CalibrationError: fewer than two images.
    """
    parts = torch.split(differences, _AT_ONCE)
    first = _fit(smooth(part, SMOOTHING) for part in parts)

    def placed() -> Iterable[Tensor]:
        return (_placed(smooth(part, SMOOTHING), first) for part in parts)

    together = _fit(part[:, :ALONE] for part in placed())
    around = _fit(part[:, ALONE:] for part in placed()) if differences.shape[1] > ALONE else None
    distances = _fit(_distances(part, together, around) for part in placed())
    return AppearanceNovelty(first, together, distances, around)


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


def _distances(placed: Tensor, together: NormalStatistics, around: NormalStatistics | None) -> Tensor:
    """(N, 2, h, w) Mahalanobis distances, (N, 1, h, w) where nothing is known of surroundings."""
    parts = [(placed[:, :ALONE], together), *([] if around is None else [(placed[:, ALONE:], around)])]
    found = [deviation(part, (), normal, JOINT, located=False, side="high") for part, normal in parts]
    return torch.stack(found, dim=1)
