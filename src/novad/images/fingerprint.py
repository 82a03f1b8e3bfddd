"""Small descriptions of an image: grey statistics, perceptual hash, thumbnail.

Sums are taken over integers, so that the figures are the same on every machine.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from novad.images.decode import Pixels

__all__ = [
    "THUMBNAIL",
    "GreyStatistics",
    "grey_statistics",
    "perceptual_hash",
    "thumbnail",
    "to_grey",
]

THUMBNAIL = 32

_BLOCK_PIXELS = 1 << 18

# Cosines of the DCT-II in 1/4096: rows are the 8 lowest frequencies, columns the 32 samples.
_COSINES = np.rint(
    4096 * np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(THUMBNAIL) + 1) / (2 * THUMBNAIL))
).astype(np.int64)

Grey = NDArray[np.int32]


@dataclass(frozen=True)
class GreyStatistics:
    """How an image is lit and focused; 1 is the brightest grey level of its bit depth."""

    brightness: float
    contrast: float
    sharpness: float


def grey_statistics(pixels: Pixels) -> GreyStatistics:
    """Mean, standard deviation and 4-neighbour Laplacian (root mean square) of (H, W, 3) pixels in grey.

    The Laplacian falls when an image is out of focus. A few rows at a time are in memory as grey levels.
    """
    height, width = pixels.shape[:2]
    total = squares = edges = 0
    for rows, around in _grey_blocks(pixels):
        total += int(rows.sum(dtype=np.int64))
        squares += int(np.square(rows, dtype=np.int64).sum())
        edges += int(np.square(_laplacian(around), dtype=np.int64).sum())
    size, inner, full = height * width, max(0, height - 2) * max(0, width - 2), np.iinfo(pixels.dtype).max
    return GreyStatistics(
        brightness=total / size / full,
        contrast=math.sqrt(max(0.0, squares / size - (total / size) ** 2)) / full,
        sharpness=math.sqrt(edges / inner) / full if inner else 0.0,
    )


def _grey_blocks(pixels: Pixels) -> Iterator[tuple[Grey, Grey]]:
    """Rows of an image in grey, block by block, and the same with the row above and the row below."""
    if pixels.shape[0] < pixels.shape[1]:
        # Of a long strip a row may be the whole image. Sums do not ask which way the rows run.
        pixels = pixels.swapaxes(0, 1)
    step = max(1, _BLOCK_PIXELS // pixels.shape[1])
    for top in range(0, len(pixels), step):
        above = min(top, 1)
        around = to_grey(pixels[top - above : top + step + 1])
        yield around[above : above + step], around


def _laplacian(grey: Grey) -> Grey:
    """4-neighbour Laplacian of all but the outermost pixels."""
    inner: Grey = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return inner


def to_grey(pixels: Pixels) -> Grey:
    """(H, W) luminance (ITU-R BT.601 weights in 1/256) of (H, W, 3) pixels, in their own range."""
    wide = pixels.astype(np.int32)
    grey: Grey = (77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2]) >> 8
    return grey


def thumbnail(grey: Grey) -> bytes:
    """32 x 32 grey levels, row by row; sources with more than 8 bits are stretched to their own maximum."""
    high = int(grey.max())
    small = grey if high <= 255 else grey * 255 // high
    image = Image.fromarray(small.astype(np.uint8)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return image.tobytes()


def perceptual_hash(grey: Grey) -> str:
    """64 bits as hex: which of the 8 x 8 lowest DCT coefficients of the thumbnail exceed their median.

    The pHash of Zauner (2010), in integers.
    """
    small = np.frombuffer(thumbnail(grey), np.uint8).reshape(THUMBNAIL, THUMBNAIL).astype(np.int64)
    spectrum = (_COSINES @ small @ _COSINES.T).ravel()
    bits = spectrum > np.median(spectrum)
    return np.packbits(bits).tobytes().hex()
