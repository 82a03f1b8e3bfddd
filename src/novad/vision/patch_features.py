"""Patch features: mid layers, locally averaged, on one grid, joined (PatchCore, Roth et al. 2021)."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["global_features", "patch_features"]


def patch_features(features: Mapping[str, Tensor]) -> Tensor:
    """Join the layers' maps on the finest grid, each averaged over 3x3 neighbours.

    Args:
        features: (N, C_l, H_l, W_l) per layer.
    Returns:
        (N, sum of C_l, H, W) with the largest H and W among the layers.
    """
    maps = [F.avg_pool2d(each, 3, stride=1, padding=1, count_include_pad=False) for each in features.values()]
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


def global_features(features: Mapping[str, Tensor]) -> Tensor:
    """One embedding per image: every layer's mean over positions, as a 1x1 grid (N, sum of C_l, 1, 1)."""
    return torch.cat([each.mean(dim=(2, 3), keepdim=True) for each in features.values()], dim=1)
