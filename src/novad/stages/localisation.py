"""Which novelty map shows defects best, judged by masks of the tuning split."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from novad.images import decode_mask
from novad.stages.line import Line
from novad.stages.map_weight import pixel_auroc
from novad.vision.candidates import CandidateGrid, Fits
from novad.vision.explainers import Explainer
from novad.vision.novelty import Candidate, deviation, map_step, statistic_maps
from novad.vision.pooling import resize_maps, smooth
from novad.vision.preprocess import images_at_once, to_batch

__all__ = ["MaskedImages", "best_map", "masked_images"]

MOST_IMAGES = 32
# A position belongs to the defect when the mask covers this share of it.
COVERED = 0.25


@dataclass(frozen=True)
class MaskedImages:
    """Defects whose place is known.

    Attributes:
        images: (N, 3, S, S) in [0, 1].
        masks: (N, h, w) which map positions are defective.
    """

    images: Tensor
    masks: Tensor


def masked_images(line: Line) -> MaskedImages | None:
    """Anomalies of the tuning split that have masks, evenly spread; None without any."""
    rows = line.rows("tuning")
    rows = rows[(rows["label"] == 1) & rows["mask_path"].notna()]
    if rows.empty:
        return None
    rows = rows.iloc[np.arange(min(len(rows), MOST_IMAGES)) * len(rows) // min(len(rows), MOST_IMAGES)]
    size = line.settings.backbone.image_size
    side = size // map_step(size)
    masks = []
    for path in rows["mask_path"]:
        mask = torch.from_numpy(decode_mask(line.path(path), line.settings.validation.max_pixels))
        masks.append(F.adaptive_avg_pool2d(mask.float()[None], side)[0] >= COVERED)
    return MaskedImages(to_batch(list(line.images(rows)), size), torch.stack(masks))


def best_map(
    explainer: Explainer,
    grid: CandidateGrid,
    fits: Fits,
    target: str,
    masked: MaskedImages | None,
    look: Candidate | None = None,
    looks: Tensor | None = None,
) -> tuple[Candidate, Tensor | None]:
    """The deviation that ranks defective positions highest, and its maps of the masked images.

    Without masks it is that of appearance. Where appearance is not known either, it is the deviation of the
    contribution, which is what the explanation divides among the pixels, from normal images at the same
    place, in either direction.

    Args:
        explainer: of the explained network.
        grid: deviations of the explanation.
        fits: distribution of its statistics over normal images.
        target: explained layer or layers.
        masked: defects whose place is known.
        look: the candidate of appearance; None where that is not known.
        looks: (N, h, w) its maps of the masked images.
    """
    if masked is None or not masked.masks.any():
        smoothing = max(grid.smoothing)
        contribution = Candidate(target, grid.computed[0], smoothing, True, "both", min(grid.top_shares))
        return look or contribution, None
    side = masked.images.shape[-1]
    step = map_step(side)
    statistics = torch.cat(
        [
            statistic_maps(explainer.explain(images, target), grid.computed, step)
            for images in torch.split(masked.images, images_at_once(side))
        ]
    )
    offered = _offered_maps(grid, fits, target, statistics)
    if look is not None and looks is not None:
        offered = chain([(look, looks)], offered)
    size = (masked.masks.shape[-2], masked.masks.shape[-1])
    return max(offered, key=lambda each: pixel_auroc(resize_maps(each[1], size), masked.masks))


def _offered_maps(
    grid: CandidateGrid, fits: Fits, target: str, statistics: Tensor
) -> Iterator[tuple[Candidate, Tensor]]:
    """Every deviation of ``target`` with its maps, one at a time."""
    for smoothing in grid.smoothing:
        smoothed, normal = smooth(statistics, smoothing), fits[target, smoothing]
        for statistic, located, side in grid.kinds():
            candidate = Candidate(target, statistic, smoothing, located, side, min(grid.top_shares))
            yield candidate, deviation(smoothed, grid.computed, normal, statistic, located, side)
