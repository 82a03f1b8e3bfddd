"""Where in the image features lie: maps are drawn where their features look, not where their cells begin.

A strided convolution puts what it sees around a pixel into the cell that begins there, and what follows adds
to it: features lie farther down and to the right than the pixels that they tell of, by up to a cell. Cells
are drawn as if they covered equal parts of the image; so the displacement is measured, and taken back.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["displacement", "moved_back"]

SPOTS = 4  # changed in every image, one after the other
SIDE = 1 / 14  # of a spot, as a share of the image's: 16 of 224 pixels
WITHIN = 0.3  # of the image's sides that spots keep from its border
FAINT = 0.1  # changes below this share of the largest one are the far ends of receptive fields


def displacement(grids: Callable[[Tensor], Tensor], images: Tensor, seed: int) -> Tensor:
    """How far below and right of what they tell of features lie, as shares of the image's sides: (2,).

    Spots of the images are greyed and made lighter or darker; the centre of what changes in the features,
    less the centre of the spot, is averaged.

    Args:
        grids: features (N, C, h, w) of images (N, 3, H, W).
        images: normal ones.
        seed: of the spots.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = images.shape[-2:]
    sides = max(1, round(height * SIDE)), max(1, round(width * SIDE))
    before, found = grids(images), list[Tensor]()
    for _ in range(SPOTS):
        corner = WITHIN + (1 - 2 * WITHIN) * torch.rand(2, generator=generator)
        top, left = int(corner[0] * height), int(corner[1] * width)
        centre = torch.tensor([(top + sides[0] / 2) / height, (left + sides[1] / 2) / width])
        changed = images.clone()
        spot = changed[:, :, top : top + sides[0], left : left + sides[1]]
        shade = 0.5 + torch.rand(len(images), 1, 1, 1, generator=generator)
        spot[:] = (spot.mean(dim=(2, 3), keepdim=True) * shade).clamp(0, 1)
        seen = _centres((grids(changed) - before).square().sum(1).sqrt())
        found.append(seen - centre)
    told = torch.cat(found)
    told = told[told.isfinite().all(dim=1)]  # a black image shows no spot
    return told.mean(dim=0) if len(told) else torch.zeros(2)


def _centres(changes: Tensor) -> Tensor:
    """Centre of each (N, h, w) map, rows and columns as shares of its sides: (N, 2)."""
    most = changes.amax(dim=(1, 2), keepdim=True)
    weights = (changes - FAINT * most).clamp_min(0)
    weights = weights / weights.sum(dim=(1, 2), keepdim=True)
    rows, columns = ((torch.arange(length) + 0.5) / length for length in changes.shape[1:])
    return torch.stack([weights.sum(2) @ rows, weights.sum(1) @ columns], dim=1)


def moved_back(maps: Tensor, by: Tensor) -> Tensor:
    """Maps (N, h, w) drawn where their features look; what comes in at the border repeats it.

    Args:
        maps: as the features lie.
        by: from ``displacement``.
    """
    # Columns come first in torch's coordinates, which run from -1 to 1.
    turned = torch.cat([torch.eye(2, device=by.device), 2 * by.flip(0)[:, None]], dim=1)[None].to(maps)
    grid = F.affine_grid(turned.expand(len(maps), 2, 3), [len(maps), 1, *maps.shape[1:]], align_corners=False)
    return F.grid_sample(maps[:, None], grid, "bilinear", "border", align_corners=False)[:, 0]
