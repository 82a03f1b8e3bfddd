"""Calibrated scores: one scale on which familiarity and novelty can be compared and joined."""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from novad.errors import CalibrationError

__all__ = [
    "NormalScale",
    "coarse_promise",
    "conformal_p_values",
    "conformal_rank",
    "conformal_threshold",
    "fit_normal_scale",
    "normal_scales",
    "promised_alpha",
    "promised_threshold",
]

Floats = NDArray[np.float64]

_NORMAL_90 = 1.2815515655446004


@dataclass(frozen=True)
class NormalScale:
    """Robust z: 0 is the median normal image, 1 about one standard deviation of the normals' upper half.

    Attributes:
        median: of raw scores of calibration normals.
        spread: distance from the median to their 90 % quantile, over that of a Gaussian.
    """

    median: float
    spread: float

    def __call__(self, raw: NDArray[np.floating]) -> Floats:
        """Raw scores to calibrated ones, any shape."""
        return (np.asarray(raw, np.float64) - self.median) / self.spread


def fit_normal_scale(normal_scores: NDArray[np.floating]) -> NormalScale:
    """Scale of a score from (n,) calibration normals.

    Raises:
        CalibrationError: empty or non-finite scores.
    """
    median, spread = normal_scales(normal_scores)
    return NormalScale(float(median), float(spread))


def normal_scales(normal_scores: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Medians and spreads of ``NormalScale`` for (n, ...) scores, each along the first axis.

    Raises:
        CalibrationError: empty or non-finite scores.
    """
    median, upper = np.quantile(_checked(normal_scores), [0.5, 0.9], axis=0)
    spread = np.maximum((upper - median) / _NORMAL_90, 1e-6 * np.maximum(np.abs(median), 1e-6))
    return median, spread


def conformal_threshold(normal_scores: NDArray[np.floating], alpha: float) -> float:
    """Smallest threshold that a new normal image exceeds with probability at most ``alpha``.

    Split conformal prediction (Vovk et al. 2005): the ceil((n + 1)(1 - alpha))-th smallest of n scores.

    Args:
        normal_scores: (n,) scores of normals that were not learned from.
        alpha: allowed false-positive rate, 0 < alpha < 1.
    Returns:
        Threshold in score units; infinity when n is too small to promise ``alpha``.
    Raises:
        CalibrationError: empty or non-finite scores, or alpha outside (0, 1).
    """
    scores = np.sort(_checked(normal_scores))
    if not 0 < alpha < 1:
        raise CalibrationError(f"alpha must lie between 0 and 1, got {alpha}")
    rank = conformal_rank(len(scores), alpha)
    return float("inf") if rank > len(scores) else float(scores[rank - 1])


def conformal_rank(count: int, alpha: float) -> int:
    """Which of ``count`` scores, counted from the smallest, is the threshold; ``count`` + 1 where none is."""
    # The tiny step keeps (n + 1)(1 - alpha) from being lifted over an integer by rounding.
    return max(1, ceil((count + 1) * (1 - alpha) - 1e-9))


def promised_alpha(count: int, alpha: float) -> float:
    """The false-alarm rate that ``count`` normals can promise: ``alpha``, or 1/(n+1) where that is more."""
    return max(alpha, 1 / (count + 1))


def promised_threshold(normal_scores: NDArray[np.floating], alpha: float) -> float:
    """``conformal_threshold`` at the rate that so many normals can promise; never infinite.

    Args:
        normal_scores: (n,) scores of normals that were not learned from.
        alpha: wanted false-alarm rate, 0 < alpha < 1.
    Raises:
        CalibrationError: empty or non-finite scores, or alpha outside (0, 1).
    """
    return conformal_threshold(normal_scores, promised_alpha(len(normal_scores), alpha))


def coarse_promise(count: int, alpha: float) -> str | None:
    """What ``count`` normals promise in place of ``alpha``, in words; None where they can promise that."""
    enough = ceil(1 / alpha - 1 - 1e-9)
    if count >= enough:
        return None
    kept = promised_alpha(count, alpha)
    return (
        f"{count} good parts set the threshold and promise at most {kept:.2g} false alarms per good part, "
        f"not the {alpha:.2g} of tune_fusion.alpha: {enough} would"
    )


def conformal_p_values(scores: NDArray[np.floating], normal_scores: NDArray[np.floating]) -> Floats:
    """Share of the normals that set the threshold at least as anomalous, counting the image itself.

    Args:
        scores: (m,) hybrid scores.
        normal_scores: (n,) hybrid scores of these normals.
    Returns:
        (m,) (1 + #{normal >= score}) / (n + 1).
    """
    normal = np.sort(_checked(normal_scores))
    at_least = len(normal) - np.searchsorted(normal, np.asarray(scores, np.float64), side="left")
    return np.asarray((1 + at_least) / (len(normal) + 1), np.float64)


def _checked(scores: NDArray[np.floating]) -> Floats:
    values = np.asarray(scores, np.float64)
    if values.size == 0:
        raise CalibrationError("no calibration score")
    if not np.isfinite(values).all():
        raise CalibrationError("calibration scores must be finite")
    return values
