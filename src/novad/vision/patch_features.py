"""Patch features: mid layers, locally averaged, on one grid, joined (PatchCore, Roth et al. 2021)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["NEIGHBOURHOOD", "global_features", "local_average", "patch_features"]


NEIGHBOURHOOD = 3


def patch_features(features: Mapping[str, Tensor], neighbourhood: int = NEIGHBOURHOOD) -> Tensor:
    """Join the layers' maps on the finest grid, each averaged over its neighbours.

    Args:
        features: (N, C_l, H_l, W_l) per layer.
        neighbourhood: side of the square that is averaged over, odd; 1 leaves features as they are.
    Returns:
        (N, sum of C_l, H, W) with the largest H and W among the layers.
    """
    maps = [local_average(each, neighbourhood) for each in features.values()]
    height, width = max(each.shape[-2] for each in maps), max(each.shape[-1] for each in maps)
    return torch.cat(
        [
            each
            if each.shape[-2:] == (height, width)
            else F.interpolate(each, (height, width), mode="bilinear", align_corners=False)
            for each in maps
        ],
        dim=1,
    )


def local_average(maps: Tensor, neighbourhood: int) -> Tensor:
    """Mean of (N, C, H, W) maps over a square around each position, as far as it lies in the map."""
    if neighbourhood == 1:
        return maps
    return F.avg_pool2d(maps, neighbourhood, 1, neighbourhood // 2, count_include_pad=False)


def global_features(features: Mapping[str, Tensor]) -> Tensor:
    """One embedding per image: every layer's mean over positions, as a 1x1 grid (N, sum of C_l, 1, 1)."""
    return torch.cat([each.mean(dim=(2, 3), keepdim=True) for each in features.values()], dim=1)
