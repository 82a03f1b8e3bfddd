"""From decoded images to network batches."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from novad.errors import ImageError

__all__ = ["CPU_BATCH", "Size", "batches", "height_and_width", "images_at_once", "to_batch"]

PixelArray = NDArray[Any]
# Height and width in pixels; one number for a square.
Size = int | tuple[int, int]

# An encoded image, its explanation and the statistics of it take over a hundred bytes for each.
MOST_PIXELS = 8 * 640**2
CPU_BATCH = 8


def height_and_width(size: Size) -> tuple[int, int]:
    """Both sides, in pixels."""
    return (size, size) if isinstance(size, int) else size


def to_batch(
    images: Sequence[PixelArray], size: Size, device: torch.device | None = None, first: int = 0
) -> Tensor:
    """Scale decoded images to one size, whatever their proportions.

    Args:
        images: (H, W, 3) arrays of uint8 or uint16; sizes may differ.
        size: of the output, in pixels.
        device: where they are scaled and lie; main memory by default.
        first: position of the first one, for errors.
    Returns:
        (N, 3, height, width) float32 in [0, 1].
    Raises:
        ImageError: an array of another shape or type; the message gives its position.
    """
    for index, image in enumerate(images, first):
        _check(image, index)
    alike = groupby(images, key=lambda image: (image.shape, image.dtype))
    # Few large ones at once: in single precision each takes four times its bytes.
    parts = (
        part
        for (shape, _), group in alike
        for part in batches(group, max(1, MOST_PIXELS // (shape[0] * shape[1])))
    )
    sides = height_and_width(size)
    return torch.cat([_scaled(np.stack(part), sides, device) for part in parts])


def images_at_once(size: Size, most: int = CPU_BATCH) -> int:
    """How many images of ``size`` go through a network together: ``most``, and fewer large ones."""
    height, width = height_and_width(size)
    return max(1, min(most, MOST_PIXELS // (height * width)))


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


def _check(image: PixelArray, index: int) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ImageError(f"image {index}: expected (H, W, 3), got {image.shape}")
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"image {index}: expected uint8 or uint16, got {image.dtype}")


def _scaled(images: PixelArray, size: tuple[int, int], device: torch.device | None) -> Tensor:
    """(n, H, W, 3) alike images as part of a batch."""
    largest = float(np.iinfo(images.dtype).max)
    there = torch.from_numpy(images).to(device)
    pixels = there.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / largest
    if pixels.shape[-2:] == size:
        return pixels
    return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False).clamp_(0, 1)
