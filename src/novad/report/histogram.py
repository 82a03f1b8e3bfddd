"""Bars of a score histogram, for a drawing that needs no library on the page."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["Bar", "Histogram", "histogram"]

_BINS = 32


@dataclass(frozen=True)
class Bar:
    """Images of one kind whose score lies in one interval; places are shares of width and height."""

    label: str
    left: float
    width: float
    height: float
    count: int


@dataclass(frozen=True)
class Histogram:
    """Hybrid scores of good and defective test images."""

    bars: list[Bar]
    lines: Mapping[str, float]
    """Place of each threshold that lies within the range."""
    low: float
    high: float


def histogram(scores: pd.DataFrame, thresholds: Mapping[str, float]) -> Histogram:
    """Count hybrid scores in equal intervals; the highest 2 % are counted in the last, as they would
    squeeze all others into one.

    Args:
        thresholds: drawn as lines, by name.
    """
    values = scores["hybrid"].to_numpy(np.float64)
    finite = [value for value in thresholds.values() if np.isfinite(value)]
    low = float(min([values.min(), *finite]))
    high = float(max([np.quantile(values, 0.98), *finite]))
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    counts = {
        label: np.histogram(values[scores["label"] == number].clip(max=edges[-1]), edges)[0]
        for number, label in ((0, "good"), (1, "defective"))
    }
    tallest = max(int(each.max()) for each in counts.values())
    return Histogram(
        bars=[bar for label, each in counts.items() for bar in _bars(label, each, tallest)],
        lines={
            name: (value - low) / (edges[-1] - low) for name, value in thresholds.items() if value in finite
        },
        low=low,
        high=float(edges[-1]),
    )


def _bars(label: str, counts: NDArray[np.integer], tallest: int) -> list[Bar]:
    return [
        Bar(label, at / _BINS, 1 / _BINS, int(count) / tallest, int(count))
        for at, count in enumerate(counts)
        if count
    ]
