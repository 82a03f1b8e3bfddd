"""Pixel-level figures over a stream of maps: pixel AUROC, AUPRO and AUPIMO."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["PixelFigures", "area_under"]

Floats = NDArray[np.float64]
LEVELS = 65_536
AUPRO_LIMIT = 0.3
PIMO_BOUNDS = (1e-5, 1e-4)


@dataclass(frozen=True)
class _Region:
    """A connected defect: its image and the sorted map values of its pixels."""

    image: int
    values: NDArray[np.float32]


class PixelFigures:
    """Takes one map at a time and keeps counts instead of pixels.

    Normal pixels are counted in 65 536 levels of a monotone squash of the map value, so memory does not grow
    with the number of images; defect pixels are kept whole. False-positive rates are therefore exact up to
    pixels that share a level.

    Example:
        >>> figures = PixelFigures()
        >>> figures.add(np.zeros((4, 4), np.float32), None)
        >>> mask = np.zeros((4, 4), bool); mask[1, 1] = True
        >>> figures.add(mask.astype(np.float32), mask)
        >>> figures.finish()["pixel_auroc"]
        1.0
    """

    def __init__(self) -> None:
        self._negative = np.zeros(LEVELS, np.int64)
        self._of_normal_images = np.zeros(LEVELS, np.int64)
        self._regions: list[_Region] = []
        self._images: list[NDArray[np.float32]] = []

    def add(self, heat: NDArray[np.floating], mask: NDArray[np.bool_] | None) -> None:
        """Take the (H, W) map of a normal image (``mask`` None) or of a defect with its mask."""
        heat = np.asarray(heat, np.float32)
        if mask is None:
            counts = np.bincount(_level(heat).ravel(), minlength=LEVELS)
            self._negative += counts
            self._of_normal_images += counts
            return
        self._negative += np.bincount(_level(heat[~mask]), minlength=LEVELS)
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for region in range(1, count + 1):
            self._regions.append(_Region(len(self._images), np.sort(heat[labels == region])))
        self._images.append(np.sort(heat[mask]))

    def finish(self) -> dict[str, float | None]:
        """``pixel_auroc``, ``aupro`` (up to 30 % false positives) and ``aupimo``; None without any mask."""
        if not self._regions or not self._negative.sum():
            return {"pixel_auroc": None, "aupro": None, "aupimo": None}
        pimo = self._aupimo() if self._of_normal_images.sum() else None
        return {"pixel_auroc": self._auroc(), "aupro": self._aupro(), "aupimo": pimo}

    def _auroc(self) -> float:
        levels = np.concatenate([_level(values) for values in self._images])
        positive = np.bincount(levels, minlength=LEVELS)
        below = np.cumsum(self._negative) - self._negative
        wins = (positive * (below + self._negative / 2)).sum()
        return round(float(wins / (positive.sum() * self._negative.sum())), 6)

    def _aupro(self) -> float:
        """Area under mean region overlap against false-positive rate (Bergmann et al. 2020)."""
        rate = _exceeding(self._negative)
        overlap = np.zeros(LEVELS)
        for region in self._regions:
            overlap += _recall(region.values) / len(self._regions)
        return round(area_under(rate, overlap, 0.0, AUPRO_LIMIT), 6)

    def _aupimo(self) -> float:
        """Mean per-image overlap over log false-positive rates 1e-5 to 1e-4 of normal images.

        Bertoldo et al. 2024; here the shared rate is taken over all pixels of the normal images.
        """
        rate = _exceeding(self._of_normal_images)
        low, high = (float(np.log(bound)) for bound in PIMO_BOUNDS)
        inside = rate > 0
        logs = np.log(rate[inside])
        areas = [area_under(logs, _recall(values)[inside], low, high) for values in self._images]
        return round(float(np.mean(areas)), 6)


def area_under(x: Floats, y: Floats, low: float, high: float) -> float:
    """Mean of the step-free curve y(x) between ``low`` and ``high``, linear between its points.

    Args:
        x: (n,) descending or ascending abscissae.
        y: (n,) ordinates.
        low: left bound; the curve is held constant beyond its ends.
        high: right bound.
    """
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    inside = (x > low) & (x < high)
    at = np.r_[low, x[inside], high]
    values = np.r_[np.interp(low, x, y), y[inside], np.interp(high, x, y)]
    return float(np.trapezoid(values, at) / (high - low))


def _level(values: NDArray[Any]) -> NDArray[np.int64]:
    """Monotone squash of any real value to a level; finest around normal map values, 0 to a few."""
    wide = np.asarray(values, np.float64)
    unit = 0.5 + 0.5 * np.sign(wide) * (np.log1p(np.abs(wide)) / np.log1p(1e4))
    return np.asarray(np.clip((unit * LEVELS).astype(np.int64), 0, LEVELS - 1), np.int64)


def _exceeding(counts: NDArray[np.int64]) -> Floats:
    """Share of counted pixels at or above each level."""
    return np.asarray(counts[::-1].cumsum()[::-1] / counts.sum(), np.float64)


def _recall(values: NDArray[np.float32]) -> Floats:
    """Share of a region's pixels at or above each level."""
    return _exceeding(np.bincount(_level(values), minlength=LEVELS))
