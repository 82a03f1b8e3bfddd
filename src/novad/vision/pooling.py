"""From maps to image scores, and the smoothing and scaling of maps."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["resize_maps", "smooth", "top_means"]


def top_means(maps: Tensor, shares: Sequence[float]) -> Tensor:
    """Mean of the highest values of each map, for several shares of its positions at once.

    Args:
        maps: (N, H, W).
        shares: each in (0, 1]; at least one position is taken.
    Returns:
        (N, len(shares)).
    """
    # NumPy's vectorised sort of all values takes a quarter of the time of torch's top k of a fifth of them.
    ordered = np.sort(maps.flatten(1).numpy(), axis=1)
    counts = [max(1, round(share * ordered.shape[1])) for share in shares]
    return torch.from_numpy(np.stack([ordered[:, -count:].mean(axis=1) for count in counts], axis=1))


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (N, C, H, W) maps with reflected borders; ``sigma`` in positions, 0 leaves them."""
    radius = min(math.ceil(3 * sigma), maps.shape[-1] - 1, maps.shape[-2] - 1)
    if sigma == 0 or radius < 1:
        return maps
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    channels = maps.shape[1]
    rows = kernel.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1)
    padded = F.pad(maps, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(padded, rows, groups=channels), rows.transpose(2, 3), groups=channels)


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of (N, H, W) maps to ``size``; values keep their units."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
