"""Calibrated maps: both kinds on one grid and one scale, so that they can be fused and drawn."""

from dataclasses import dataclass

import torch
from torch import Tensor

from novad.errors import CalibrationError
from novad.vision.pooling import resize_maps

__all__ = ["MapScale", "fit_map_scale", "fuse_maps"]


@dataclass(frozen=True)
class MapScale:
    """0 is the median normal position, 1 the highest position of a typical normal image."""

    median: float
    spread: float

    def __call__(self, maps: Tensor) -> Tensor:
        """Raw (N, h, w) maps to calibrated ones."""
        return (maps - self.median) / self.spread


def fit_map_scale(normal_maps: Tensor) -> MapScale:
    """Scale from (n, h, w) maps of calibration normals.

    Raises:
        CalibrationError: empty or non-finite maps.
    """
    if normal_maps.numel() == 0 or not torch.isfinite(normal_maps).all():
        raise CalibrationError("calibration maps must be non-empty and finite")
    median = float(normal_maps.float().median())
    peaks = normal_maps.float().amax(dim=(1, 2))
    spread = float(peaks.median()) - median
    return MapScale(median, max(spread, 1e-6 * max(abs(median), 1e-6)))


def fuse_maps(familiarity: Tensor, novelty: Tensor, weight: float) -> dict[str, Tensor]:
    """Bring calibrated maps to the finer grid and fuse them as the scores are fused.

    Args:
        familiarity: (N, h, w) calibrated.
        novelty: (N, h', w') calibrated.
        weight: share of novelty.
    Returns:
        ``familiarity``, ``novelty`` and ``hybrid`` maps of one size.
    """
    size = (
        max(familiarity.shape[-2], novelty.shape[-2]),
        max(familiarity.shape[-1], novelty.shape[-1]),
    )
    familiarity, novelty = resize_maps(familiarity, size), resize_maps(novelty, size)
    return {
        "familiarity": familiarity,
        "novelty": novelty,
        "hybrid": (1 - weight) * familiarity + weight * novelty,
    }
