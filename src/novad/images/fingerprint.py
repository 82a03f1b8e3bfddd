"""Small descriptions of an image: grey statistics, perceptual hash, thumbnail.

Sums are taken over integers, so that the figures are the same on every machine.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from novad.images.decode import Pixels

__all__ = [
    "THUMBNAIL",
    "GreyStatistics",
    "contrast",
    "grey_statistics",
    "perceptual_hash",
    "sharpness",
    "thumbnail",
    "to_grey",
]

THUMBNAIL = 32

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
    """Mean, standard deviation and Laplacian of the grey levels of (H, W, 3) pixels."""
    grey, full = to_grey(pixels), np.iinfo(pixels.dtype).max
    return GreyStatistics(
        brightness=int(grey.sum(dtype=np.int64)) / grey.size / full,
        contrast=contrast(grey) / full,
        sharpness=sharpness(grey) / full,
    )


def to_grey(pixels: Pixels) -> Grey:
    """(H, W) luminance (ITU-R BT.601 weights in 1/256) of (H, W, 3) pixels, in their own range."""
    wide = pixels.astype(np.int32)
    grey: Grey = (77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2]) >> 8
    return grey


def contrast(grey: Grey) -> float:
    """Standard deviation of the grey levels."""
    total, squares = int(grey.sum(dtype=np.int64)), int(np.square(grey, dtype=np.int64).sum())
    return math.sqrt(max(0.0, squares / grey.size - (total / grey.size) ** 2))


def sharpness(grey: Grey) -> float:
    """Root mean square of the 4-neighbour Laplacian, in grey levels; falls when an image is out of focus."""
    if min(grey.shape) < 3:
        return 0.0
    inner = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return math.sqrt(int(np.square(inner, dtype=np.int64).sum()) / inner.size)


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
