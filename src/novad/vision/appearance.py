"""Appearance: what patches look like in the input, whatever the network makes of it.

The nearest normal vector says which normal patch an image should look like there. What differs in the pixels
all the same was nothing to the network: a feature that it never learned.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["appearance", "vector_appearance"]


def appearance(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Mean colour, contrast of each colour, and strength of edges across and down, patch by patch.

    Args:
        images: (N, 3, H, W) in [0, 1].
        shape: h, w of the patches; like features, each is averaged with its neighbours.
    Returns:
        (N, 8, h, w) in units of the images.
    """
    grey = images.mean(1, keepdim=True)
    across = F.pad(grey.diff(dim=3).abs(), (0, 1))
    down = F.pad(grey.diff(dim=2).abs(), (0, 0, 0, 1))
    pooled = F.adaptive_avg_pool2d(torch.cat([images, images.square(), across, down], dim=1), shape)
    near = F.avg_pool2d(pooled, 3, stride=1, padding=1, count_include_pad=False)
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
