"""How much novelty the hybrid map takes, judged by masked defects of the tuning split."""

import numpy as np
from torch import Tensor

from novad.vision.fusion import WEIGHTS, standing
from novad.vision.maps import fuse_maps
from novad.vision.pooling import resize_maps

__all__ = ["map_weight", "pixel_auroc"]


def map_weight(familiarity: Tensor, novelty: Tensor, masks: Tensor) -> float:
    """Share of novelty in the hybrid map that ranks defective positions highest.

    Args:
        familiarity: (N, h, w) calibrated.
        novelty: (N, h', w') calibrated, or several times N: the same images, learned from others each time.
        masks: (N, h'', w'') bool.
    """
    size, times = (masks.shape[-2], masks.shape[-1]), (len(novelty) // len(masks), 1, 1)
    familiarity, masks = familiarity.repeat(times), masks.repeat(times)
    known, unknown = resize_maps(familiarity, size), resize_maps(novelty, size)
    return max(WEIGHTS, key=lambda weight: pixel_auroc(fuse_maps(known, unknown, weight)["hybrid"], masks))


def pixel_auroc(maps: Tensor, masks: Tensor) -> float:
    """Chance that a defective position ranks above a sound one, over all (N, h, w) positions."""
    return float(standing(np.sort(maps[masks].numpy()), maps[~masks].numpy()).mean())
