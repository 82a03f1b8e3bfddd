"""From decoded images to network batches."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from novad.errors import ImageError

__all__ = ["batches", "images_at_once", "to_batch"]

PixelArray = NDArray[Any]

# An encoded image, its explanation and the statistics of it take over a hundred bytes for each.
MOST_PIXELS = 8 * 640**2


def to_batch(images: Sequence[PixelArray], size: int) -> Tensor:
    """Scale decoded images to squares of ``size`` pixels.

    Args:
        images: (H, W, 3) arrays of uint8 or uint16; sizes may differ.
        size: side of the output, in pixels.
    Returns:
        (N, 3, size, size) float32 in [0, 1].
    Raises:
        ImageError: an array of another shape or type; the message gives its position.
    """
    return torch.cat([_scaled(image, index, size) for index, image in enumerate(images)])


def images_at_once(side: int, most: int = 8) -> int:
    """How many squares of ``side`` pixels go through a network together: ``most``, and fewer large ones."""
    return max(1, min(most, MOST_PIXELS // side**2))


def batches(images: Iterable[PixelArray], batch_size: int) -> Iterator[list[PixelArray]]:
    """Group a stream into lists of at most ``batch_size``, without reading ahead."""
    group: list[PixelArray] = []
    for image in images:
        group.append(image)
        if len(group) == batch_size:
            yield group
            group = []
    if group:
        yield group


def _scaled(image: PixelArray, index: int, size: int) -> Tensor:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ImageError(f"image {index}: expected (H, W, 3), got {image.shape}")
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"image {index}: expected uint8 or uint16, got {image.dtype}")
    largest = float(np.iinfo(image.dtype).max)
    pixels = (
        torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))[None] / largest
    )
    if pixels.shape[-2:] == (size, size):
        return pixels
    return F.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False).clamp_(
        0, 1
    )
