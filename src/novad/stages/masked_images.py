"""Defects of the tuning split whose place is known."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from novad.images import decode_mask
from novad.stages.deviations import image_tensors
from novad.stages.line import Line, evenly
from novad.vision.novelty import map_step

__all__ = ["COVERED", "MaskedImages", "masked_images", "sound_images"]

MOST_IMAGES = 32
# A position belongs to the defect when the mask covers this share of it.
COVERED = 0.25


@dataclass(frozen=True)
class MaskedImages:
    """Defects whose place is known.

    Attributes:
        images: (N, 3, H, W) in [0, 1].
        masks: (N, h, w) which map positions are defective.
        kinds: defect type of each.
        parts: name of the part that each shows; images of one part are held out together.
    """

    images: Tensor
    masks: Tensor
    kinds: tuple[str, ...]
    parts: tuple[str, ...]


def masked_images(line: Line) -> MaskedImages | None:
    """Anomalies of the tuning split that have masks, evenly spread; None without any."""
    rows = line.rows("tuning")
    rows = evenly(rows[(rows["label"] == 1) & rows["mask_path"].notna()], MOST_IMAGES)
    if rows.empty:
        return None
    size = line.settings.backbone.input_size
    step = map_step(size)
    positions = (size[0] // step, size[1] // step)
    masks = []
    for path in rows["mask_path"]:
        mask = torch.from_numpy(decode_mask(line.path(path), line.settings.validation.max_pixels))
        masks.append(F.adaptive_avg_pool2d(mask.float()[None], positions)[0] >= COVERED)
    return MaskedImages(
        torch.cat(list(image_tensors(line, line.images(rows)))),
        torch.stack(masks),
        tuple(rows["defect_type"]),
        tuple(line.parts(rows).tolist()),
    )


def sound_images(line: Line) -> Iterator[Tensor]:
    """Batches (n, 3, H, W) in [0, 1] of normals of the tuning split, evenly spread; there may be none."""
    rows = line.rows("tuning")
    return image_tensors(line, line.images(evenly(rows[rows["label"] == 0], MOST_IMAGES)))
