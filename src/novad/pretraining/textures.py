"""Labelled images by formula: a class is a seed, a sample is another; nothing is photographed."""

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.utils.data import Dataset

from novad.pretraining.formulas import FIELDS, Field, silhouettes, smooth_noise

__all__ = ["FormulaTextures", "draw"]


def draw(category: int, size: int, sample: Generator) -> NDArray[np.uint8]:
    """One image of class ``category``.

    A class fixes up to three layers (each a formula field and two colours), how they are masked, and
    whether light from one side embosses them; the sample moves, lights and blurs them.

    Returns:
        (size, size, 3) uint8.
    """
    traits = np.random.default_rng([7, category])
    palette = _palette(traits)
    layers = [str(name) for name in traits.choice(list(FIELDS), int(traits.integers(1, 4)))]
    emboss, mask_wavelength = traits.random() < 0.35, float(traits.uniform(12, 60))
    image = np.zeros((size, size, 3), np.float32)
    for depth, name in enumerate(layers):
        own = np.random.default_rng([7, category, depth])
        field = FIELDS[name](size, own, sample)
        layer = _colour(_emboss(field, own) if emboss else field, palette[2 * depth : 2 * depth + 2])
        image = layer if depth == 0 else _cover(image, layer, field, mask_wavelength, own, sample)
    return _photograph(image, sample)


def _palette(traits: Generator) -> Field:
    """Three pairs of colours in [0, 1]; near half of the classes are grey, as machine cameras are."""
    if traits.random() < 0.45:
        return np.repeat(traits.random((6, 1)), 3, axis=1).astype(np.float32)
    base = traits.random((6, 3))
    return (
        (0.5 * base + 0.5 * base.mean(0)).astype(np.float32) if traits.random() < 0.5 else base.astype("f4")
    )


def _colour(field: Field, pair: Field) -> Field:
    share = np.clip(field * 0.5 + 0.5, 0, 1)[..., None]
    return np.asarray(pair[0] * (1 - share) + pair[1] * share, np.float32)


def _emboss(field: Field, own: Generator) -> Field:
    angle = own.uniform(0, 2 * np.pi)
    down, right = np.gradient(field)
    lit = 2.5 * (right * np.cos(angle) + down * np.sin(angle)) + 0.25 * field
    return np.asarray(np.clip(lit, -1, 1), np.float32)


def _cover(
    below: Field, above: Field, field: Field, wavelength: float, own: Generator, sample: Generator
) -> Field:
    mode = int(own.integers(0, 4))
    if mode == 3:
        return _objects(below, above, own, sample)
    if mode == 0:
        mask = smooth_noise(field.shape[0], wavelength, sample) > own.normal(0, 0.3)
    elif mode == 1:
        mask = field > 0
    else:
        mask = np.full(field.shape, own.uniform(0.3, 0.7))
    share = mask.astype(np.float32)[..., None]
    return np.asarray(below * (1 - share) + above * share, np.float32)


def _objects(below: Field, above: Field, own: Generator, sample: Generator) -> Field:
    """Objects cut from one layer on the ground of another, rounded by shading and with a cast shadow."""
    outline = silhouettes(below.shape[0], own, sample)
    softness = own.uniform(1.5, 12)
    body = gaussian_filter(outline, softness)
    angle = own.uniform(0, 2 * np.pi)
    down, right = np.gradient(body)
    light = (right * np.cos(angle) + down * np.sin(angle)) * softness * own.uniform(0, 1.2)
    offset = (np.array([np.sin(angle), np.cos(angle)]) * softness).round().astype(int)
    shadow = 1 - own.uniform(0, 0.6) * np.roll(body, (int(offset[0]), int(offset[1])), (0, 1))
    share = outline[..., None]
    return np.asarray(
        below * shadow[..., None] * (1 - share) + np.clip(above + light[..., None], 0, 1) * share, np.float32
    )


def _photograph(image: Field, sample: Generator) -> NDArray[np.uint8]:
    """Exposure, contrast, uneven light, blur and noise of one shot."""
    size = image.shape[0]
    image = (image - 0.5) * np.exp(sample.normal(0, 0.25)) + 0.5 + sample.normal(0, 0.08)
    if sample.random() < 0.4:
        x = np.linspace(-1, 1, size, dtype=np.float32)
        angle = sample.uniform(0, 2 * np.pi)
        slope = np.cos(angle) * x[None, :] + np.sin(angle) * x[:, None]
        image = image * (1 + sample.uniform(0, 0.4) * slope[..., None])
    if sample.random() < 0.5:
        image = image + sample.normal(0, sample.uniform(0, 0.05), image.shape).astype(np.float32)
    picture = np.clip(image * 255, 0, 255).astype(np.uint8)
    if sample.random() < 0.3:
        small = int(size * sample.uniform(0.45, 0.9))
        shrunk = Image.fromarray(picture).resize((small, small), Image.Resampling.BILINEAR)
        picture = np.asarray(shrunk.resize((size, size), Image.Resampling.BICUBIC))
    return picture


class FormulaTextures(Dataset[tuple[Tensor, int]]):
    """``length`` labelled images; number i is the same image on every machine with the same libraries.

    Args:
        length: images per epoch.
        categories: number of classes.
        size: side in pixels.
        seed: of the samples; the classes themselves are fixed.
    """

    def __init__(self, length: int, categories: int, size: int, seed: int) -> None:
        self.length, self.categories, self.size, self.seed = length, categories, size, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= self.length:
            raise IndexError(index)
        sample = np.random.default_rng([self.seed, index])
        category = int(sample.integers(0, self.categories))
        pixels = draw(category, self.size, sample)
        if sample.random() < 0.5:
            pixels = pixels[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), category
