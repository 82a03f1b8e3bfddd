"""Synthetic anomalies, for lines that have no labelled defect to tune on."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from novad.errors import CalibrationError

__all__ = ["SYNTHETIC_TYPES", "synthetic_anomaly"]

Pixels = NDArray[Any]


def _box(image: Pixels, rng: Generator, smallest: float, largest: float) -> tuple[slice, slice]:
    """A random rectangle whose sides are shares of the image's."""
    sides = [max(2, int(side * rng.uniform(smallest, largest))) for side in image.shape[:2]]
    corners = [
        int(rng.integers(0, length - side + 1)) for length, side in zip(image.shape[:2], sides, strict=True)
    ]
    return slice(corners[0], corners[0] + sides[0]), slice(corners[1], corners[1] + sides[1])


def cut_paste(image: Pixels, rng: Generator) -> Pixels:
    """A piece of the image moved elsewhere (CutPaste, Li et al. 2021)."""
    source = _box(image, rng, 0.08, 0.25)
    piece = image[source][:, ::-1]
    row = int(rng.integers(0, image.shape[0] - piece.shape[0] + 1))
    column = int(rng.integers(0, image.shape[1] - piece.shape[1] + 1))
    image[row : row + piece.shape[0], column : column + piece.shape[1]] = piece.copy()
    return image


def foreign_texture(image: Pixels, rng: Generator) -> Pixels:
    """A patch of stripes over the surface, at moderate contrast."""
    box = _box(image, rng, 0.08, 0.25)
    patch = image[box].astype(np.float64)
    y, x = np.mgrid[0 : patch.shape[0], 0 : patch.shape[1]]
    angle, wavelength = rng.uniform(0, np.pi), rng.uniform(3, 9)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / wavelength)
    contrast = rng.uniform(0.06, 0.2) * np.iinfo(image.dtype).max
    image[box] = _clipped(patch + contrast * wave[..., None], image)
    return image


def noise_patch(image: Pixels, rng: Generator) -> Pixels:
    """A patch of added noise."""
    box = _box(image, rng, 0.08, 0.25)
    patch = image[box].astype(np.float64)
    strength = rng.uniform(0.05, 0.2) * np.iinfo(image.dtype).max
    image[box] = _clipped(patch + rng.normal(0, strength, patch.shape[:2])[..., None], image)
    return image


def scratch(image: Pixels, rng: Generator) -> Pixels:
    """A thin straight line, lighter or darker than what it crosses."""
    height, width = image.shape[:2]
    length, angle = rng.uniform(0.15, 0.5) * min(height, width), rng.uniform(0, np.pi)
    centre_row, centre_column = rng.uniform(0.2, 0.8, 2) * (height, width)
    y, x = np.ogrid[0:height, 0:width]
    along = (x - centre_column) * np.cos(angle) + (y - centre_row) * np.sin(angle)
    across = -(x - centre_column) * np.sin(angle) + (y - centre_row) * np.cos(angle)
    line = (np.abs(along) < length / 2) & (np.abs(across) < max(1.0, min(height, width) / 200))
    tone = rng.choice([-1, 1]) * rng.uniform(0.15, 0.45) * np.iinfo(image.dtype).max
    image[line] = _clipped(image[line].astype(np.float64) + tone, image)
    return image


def _clipped(values: NDArray[np.float64], like: Pixels) -> Pixels:
    return np.asarray(np.clip(values, 0, np.iinfo(like.dtype).max).astype(like.dtype))


SYNTHETIC_TYPES: dict[str, Callable[[Pixels, Generator], Pixels]] = {
    "cut_paste": cut_paste,
    "foreign_texture": foreign_texture,
    "noise_patch": noise_patch,
    "scratch": scratch,
}


def synthetic_anomaly(image: Pixels, number: int, seed: int) -> tuple[Pixels, str]:
    """A defective copy of a normal image; the kind goes round by ``number``.

    Args:
        image: (H, W, 3) uint8 or uint16; stays as it is.
        number: of the image, decides kind and placement.
        seed: of the line.
    Returns:
        The copy and the kind.
    Raises:
        CalibrationError: an image too small to hold a defect.
    """
    if min(image.shape[:2]) < 16:
        raise CalibrationError(f"an image of {image.shape[:2]} pixels is too small for a synthetic defect")
    names = tuple(SYNTHETIC_TYPES)
    kind = names[number % len(names)]
    return SYNTHETIC_TYPES[kind](image.copy(), np.random.default_rng([seed, number])), kind
