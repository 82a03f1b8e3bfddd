"""Since when: the most likely start of a change in a series, sudden or gradual."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["change_point"]

Floats = NDArray[np.float64]


def change_point(values: Floats, known: int) -> int:
    """Where a step or a ramp that lasts to the end explains most of ``values``: least squares over both.

    That is the maximum-likelihood change point of a mean under Gaussian noise (Hinkley 1970), and its like
    for a mean that moves on at a constant rate.

    Args:
        values: (n,) in their order.
        known: so many at the beginning are from before any change.
    Returns:
        Index of the first changed value, ``known`` to n - 1.
    """
    count = len(values)
    centred = values - values.mean()
    after = np.arange(count, 0, -1.0)  # values from each index to the end
    step_sum = np.cumsum(centred[::-1])[::-1]
    ramp_sum = np.cumsum(step_sum[::-1])[::-1]
    step = _explained(step_sum, after, after, count)
    ramp = _explained(ramp_sum, after * (after + 1) / 2, after * (after + 1) * (2 * after + 1) / 6, count)
    gains = np.maximum(step, ramp)[known:]
    return known + int(np.argmax(gains))


def _explained(product: Floats, total: Floats, squares: Floats, count: int) -> Floats:
    """Sum of squares that a regression on a curve explains, from its product with the centred values."""
    spread = squares - total**2 / count
    return np.divide(product**2, spread, out=np.zeros_like(product), where=spread > 1e-9 * squares)
