"""Since when: the most likely start of a change in a series, sudden or gradual."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["change_likelihoods", "change_point"]

Floats = NDArray[np.float64]

_LEAST = 1e-9


def change_likelihoods(values: Floats, known: int) -> Floats:
    """Log-likelihood ratio of a step or a ramp that lasts to the end, from each index on, against no change.

    Under Gaussian noise of unknown variance it is -n/2 log(1 - explained / total sum of squares). Where it is
    greatest lies the maximum-likelihood change point of a mean (Hinkley 1970), and its like for a mean that
    moves on at a constant rate. Those of independent series add.

    Args:
        values: (n,) in their order.
        known: so many at the beginning are from before any change.
    Returns:
        (2, n - known) of a step, and of a ramp, that begins at index ``known``, ``known`` + 1, ...
    """
    count = len(values)
    centred = values - values.mean()
    after = np.arange(count, 0, -1.0)  # values from each index to the end
    step_sum = np.cumsum(centred[::-1])[::-1]
    ramp_sum = np.cumsum(step_sum[::-1])[::-1]
    step = _explained(step_sum, after, after, count)
    ramp = _explained(ramp_sum, after * (after + 1) / 2, after * (after + 1) * (2 * after + 1) / 6, count)
    total = np.sum(centred**2)
    left = 1 - np.stack([step, ramp])[:, known:] / total if total else np.ones((2, count - known))
    return -count / 2 * np.log(np.maximum(left, _LEAST))


def change_point(likelihoods: Floats) -> int:
    """Index of the likeliest begin, of a step or a ramp, by (2, n) likelihoods; of equal ones the first."""
    return int(np.argmax(likelihoods.max(axis=0)))


def _explained(product: Floats, total: Floats, squares: Floats, count: int) -> Floats:
    """Sum of squares that a regression on a curve explains, from its product with the centred values."""
    spread = squares - total**2 / count
    return np.divide(product**2, spread, out=np.zeros_like(product), where=spread > _LEAST * squares)
