"""Pixel-level figures over a stream of maps: pixel AUROC, AUPRO and AUPIMO."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from novad.errors import CalibrationError, ImageError

__all__ = ["AUPRO_LIMIT", "PIMO_BOUNDS", "PixelFigures", "area_under"]

Floats = NDArray[np.float64]
AUPRO_LIMIT = 0.3
PIMO_BOUNDS = (1e-5, 1e-4)

# A level is the sign, the exponent and the leading 11 bits of the mantissa of a float32.
_DROPPED_BITS = 12
LEVELS = 2 ** (32 - _DROPPED_BITS)


class PixelFigures:
    """Takes one map at a time and keeps counts instead of pixels: 48 MB, however many images come.

    Map values are counted in levels one 2048th of their size apart, in the order of the values. Two pixels
    that share a level count as tied, so ``pixel_auroc`` differs from that of the unrounded maps by at most
    half the share of (normal, defect) pixel pairs that are closer than that.

    Example:
        >>> figures = PixelFigures()
        >>> figures.add(np.zeros((4, 4), np.float32), None)
        >>> mask = np.zeros((4, 4), bool); mask[1, 1] = True
        >>> figures.add(mask.astype(np.float32), mask)
        >>> figures.finish()["pixel_auroc"]
        1.0
    """

    def __init__(self) -> None:
        self._defect_pixels = np.zeros(LEVELS, np.int64)
        self._other_pixels = np.zeros(LEVELS, np.int64)
        # Shares, summed: of each connected defect, of each image's defects, of each normal image.
        self._regions, self._region_count = np.zeros(LEVELS), 0
        self._defects, self._defect_count = np.zeros(LEVELS), 0
        self._normals, self._normal_count, self._normal_pixels = np.zeros(LEVELS), 0, 0

    def add(self, heat: NDArray[np.floating], mask: NDArray[np.bool_] | None, name: str = "a map") -> None:
        """Take one image.

        Args:
            heat: (H, W) map.
            mask: (H, W), true on the defect; None for a normal image.
            name: of the image, for errors.
        Raises:
            CalibrationError: the map is not finite.
            ImageError: the mask is not of the map's size.
        """
        heat = np.asarray(heat, np.float32)
        if not np.isfinite(heat).all():
            raise CalibrationError(f"{name}: its map holds values that are not finite")
        levels = _level(heat)
        if mask is None:
            counts = np.bincount(levels.ravel(), minlength=LEVELS)
            self._other_pixels += counts
            self._normals += counts / heat.size
            self._normal_count += 1
            self._normal_pixels += heat.size
            return
        if mask.shape != heat.shape:
            raise ImageError(f"{name}: its mask is {mask.shape}, its map {heat.shape} pixels")
        np.add.at(self._other_pixels, levels[~mask], 1)
        if mask.any():
            self._add_defects(levels[mask], mask)

    def _add_defects(self, levels: NDArray[np.int64], mask: NDArray[np.bool_]) -> None:
        # A defect touches few of the million levels: only those are added to.
        seen, at = np.unique(levels, return_inverse=True)
        counts = np.bincount(at)
        self._defect_pixels[seen] += counts
        self._defects[seen] += counts / len(levels)
        self._defect_count += 1
        # Neighbours by edge or corner belong to one region, as in the MVTec AD evaluation.
        regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
        region = regions[mask]
        share = 1 / np.bincount(region)[region]
        self._regions[seen] += np.bincount(at, weights=share)
        self._region_count += count

    def finish(self) -> dict[str, float | None]:
        """The figures so far, each None where it is not defined.

        Returns:
            ``pixel_auroc`` and ``aupro`` (None without defect pixels or without other pixels), ``aupimo``
            (None also with fewer normal pixels than its lowest false-positive rate can be read from).
        """
        if not self._defect_count or not self._other_pixels.any():
            return {"pixel_auroc": None, "aupro": None, "aupimo": None}
        resolved = self._normal_pixels * PIMO_BOUNDS[0] >= 1 - 1e-9
        return {
            "pixel_auroc": self._auroc(),
            "aupro": self._aupro(),
            "aupimo": self._aupimo() if resolved else None,
        }

    def _auroc(self) -> float:
        above = _from_highest(self._defect_pixels) - self._defect_pixels[::-1] / 2
        wins = (self._other_pixels[::-1] * above).sum()
        return round(float(wins / (float(self._defect_pixels.sum()) * self._other_pixels.sum())), 6)

    def _aupro(self) -> float:
        """Mean region overlap over false-positive rates up to 0.3 (Bergmann et al. 2021), at most 1."""
        seen = (self._other_pixels + self._defect_pixels)[::-1] > 0
        rate = _from_highest(self._other_pixels)[seen] / self._other_pixels.sum()
        overlap = _from_highest(self._regions)[seen] / self._region_count
        return round(area_under(np.r_[0.0, rate], np.r_[0.0, overlap], 0.0, AUPRO_LIMIT), 6)

    def _aupimo(self) -> float:
        """Mean over images of the recall at shared false-positive rates 1e-5 to 1e-4 (Bertoldo et al. 2024).

        The shared rate is the mean of the rates of the normal images; the area is over its logarithm. It is
        linear in the images' recalls, so the mean recall gives the mean area. Below the lowest rate
        that occurs, the recall is that without any false positive.
        """
        seen = (self._normals + self._defects)[::-1] > 0
        rate = _from_highest(self._normals)[seen] / self._normal_count
        recall = _from_highest(self._defects)[seen] / self._defect_count
        free = recall[rate == 0].max(initial=0.0)
        logs, recall = np.log(rate[rate > 0]), recall[rate > 0]
        low, high = (float(np.log(bound)) for bound in PIMO_BOUNDS)
        x, y = np.r_[min(low, logs[0]), logs[0], logs], np.r_[free, free, recall]
        return round(area_under(x, y, low, high), 6)


def area_under(x: Floats, y: Floats, low: float, high: float) -> float:
    """Mean height between ``low`` and ``high`` of the curve that joins its points by straight lines.

    Args:
        x: (n,) abscissae that never fall; equal ones make a vertical step.
        y: (n,) ordinates that never fall.
        low: left bound, where a step counts as taken.
        high: right bound, where it does not; beyond its ends the curve is level.
    """
    inside = (x > low) & (x < high)
    first = np.interp(low, x, y)
    last = np.interp(-high, -x[::-1], y[::-1])
    heights = np.r_[first, y[inside], last]
    return float(np.trapezoid(heights, np.r_[low, x[inside], high]) / (high - low))


def _level(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Level of each value: floats in their own order as integers, without their last bits."""
    bits = (values + np.float32(0)).view(np.uint32)  # adding 0 makes -0 and 0 one value
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> _DROPPED_BITS).astype(np.int64)


def _from_highest(counts: NDArray[np.integer] | Floats) -> Floats:
    """Sum over the levels at and above each, from the highest level down."""
    return np.cumsum(counts[::-1], dtype=np.float64)
