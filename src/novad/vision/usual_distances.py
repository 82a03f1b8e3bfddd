"""Usual distances: how far normal patches lie from the memory of other normal images, place by place."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["UsualDistances", "fit_usual_distances"]

# What all places say counts as much as so many images of one place (docs/research/familiarity.md).
PRIOR_IMAGES = 32.0


@dataclass(frozen=True)
class UsualDistances:
    """Mean and spread of distances at every place; borders and fine structure are far from everything.

    Attributes:
        mean: (h, w) in feature units.
        spread: (h, w) standard deviation.
        overall: (2,) mean and standard deviation over all places.
    """

    mean: Tensor
    spread: Tensor
    overall: Tensor

    def __call__(self, distances: Tensor) -> Tensor:
        """(N, h, w) distances as they would be at an average place, in feature units."""
        return self.overall[0] + self.overall[1] * (distances - self.mean) / self.spread

    def deviations(self, distances: Tensor) -> Tensor:
        """What ``self(...)`` gave, by how many standard deviations it is more than on average."""
        return (distances - self.overall[0]) / self.overall[1]


def fit_usual_distances(
    distances: Tensor, rows: Tensor, columns: Tensor, shape: tuple[int, int]
) -> UsualDistances:
    """Moments per place, drawn to those of all places where few images were seen.

    Args:
        distances: (n,) of normal patches to vectors of other images.
        rows: (n,) places, int64.
        columns: (n,).
        shape: h, w.
    """
    places, wide = rows * shape[1] + columns, distances.double()
    moments = torch.stack([torch.ones_like(wide), wide, wide.square()])
    sums = torch.zeros(3, shape[0] * shape[1], dtype=torch.float64).index_add_(1, places, moments)
    count, total, square = sums.reshape(3, *shape)
    mean, variance = wide.mean(), wide.var(correction=0).clamp_min(1e-12)
    centre = (total + PRIOR_IMAGES * mean) / (count + PRIOR_IMAGES)
    own = square - 2 * centre * total + count * centre.square()
    spread = ((own.clamp_min(0) + PRIOR_IMAGES * variance) / (count + PRIOR_IMAGES)).sqrt()
    return UsualDistances(centre.float(), spread.float(), torch.stack([mean, variance.sqrt()]).float())
