"""Memory residuals: along which directions of the features an image leaves its nearest normal patches.

A distance adds up squared residuals, every whitened direction alike. Labelled anomalies can tell which
directions matter and to which side, once each direction has figures of its own.
"""

import torch
from torch import Tensor

from novad.vision.pooling import extreme_means, smooth

__all__ = ["FIGURES", "residual_deviations"]

SMOOTHING = (0.0, 1.5)
SHARES = (0.01, 0.1)
LEAST_FAMILIAR = 0.02
# Per direction: both sides at every smoothing and share, two of the least familiar patches, one of all.
FIGURES = 2 * len(SMOOTHING) * len(SHARES) + 3


def residual_deviations(residuals: Tensor, distances: Tensor) -> Tensor:
    """How far whole images leave the memory bank along each direction.

    Args:
        residuals: (N, h, w, D) of every patch to its nearest vector, in the bank's space.
        distances: (N, h, w) that tell which patches are least familiar.
    Returns:
        (N, FIGURES * D): per figure all directions. First means of the highest and of the lowest (negated)
        values; then mean and mean square over the least familiar patches; then the mean square over all.
    """
    batch, height, width, directions = residuals.shape
    maps = residuals.permute(0, 3, 1, 2)
    columns = []
    for sigma in SMOOTHING:
        blurred = smooth(maps, sigma).reshape(batch * directions, height, width)
        for side in extreme_means(blurred, SHARES):
            columns += list(side.reshape(batch, directions, -1).unbind(2))
    flat = residuals.reshape(batch, height * width, directions)
    count = max(1, round(LEAST_FAMILIAR * height * width))
    worst = distances.reshape(batch, -1).topk(count, dim=1).indices
    least = flat.gather(1, worst[..., None].expand(-1, -1, directions))
    columns += [least.mean(1), least.square().mean(1), flat.square().mean(1)]
    return torch.cat(columns, dim=1)
