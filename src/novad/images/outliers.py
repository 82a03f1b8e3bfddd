"""Which images stand out among the normal ones of a line, in ways a camera or a mix-up explains."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["lonely", "robust_deviation"]

# Nearest neighbours are searched among at most this many normals, so that the cost stays linear.
_COMPANY = 2000
_FEWEST = 8


def robust_deviation(values: NDArray[np.float64], normal: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance from the median of the normal values, in robust standard deviations; NaN where unknown.

    The scale is 1.4826 x the median absolute deviation, at least 1 % of the median, so that a constant
    statistic makes no outliers out of rounding.
    """
    known = values[normal & np.isfinite(values)]
    if len(known) < _FEWEST:
        return np.full(len(values), np.nan)
    median = float(np.median(known))
    scale = max(1.4826 * float(np.median(abs(known - median))), 0.01 * abs(median), 1e-6)
    return (values - median) / scale


def lonely(manifest: pd.DataFrame, normal: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How far each normal image is from the nearest other normal one, as a robust deviation; else NaN.

    The distance is the mean absolute difference of 32 x 32 thumbnails after their own mean is taken off.
    """
    result = np.full(len(manifest), np.nan)
    rows = np.flatnonzero(normal)
    if len(rows) < _FEWEST:
        return result
    thumbnails = np.stack([np.frombuffer(value, np.uint8) for value in manifest["thumbnail"].iloc[rows]])
    centred = thumbnails.astype(np.int16) - thumbnails.mean(axis=1, keepdims=True).round().astype(np.int16)
    company = centred[np.argsort(manifest["sha256"].iloc[rows].to_numpy())[:_COMPANY]]
    nearest = np.array([_nearest(image, company) for image in centred])
    result[rows] = robust_deviation(nearest, np.ones(len(rows), bool))
    return result


def _nearest(image: NDArray[np.int16], company: NDArray[np.int16]) -> float:
    """Distance to the closest one that is not the image itself."""
    distances = np.sort(abs(company - image).sum(axis=1, dtype=np.int64))
    others = distances[1:] if distances[0] == 0 else distances
    return float(others[0]) / image.size
