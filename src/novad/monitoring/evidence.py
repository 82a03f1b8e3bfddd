"""Sequential evidence against 'nothing has changed', valid however often it is looked at.

A conformal test martingale (Vovk, Nouretdinov and Gammerman 2003): each value is ranked among the reference
and all values before it. While all are exchangeable, the ranks are independent and uniform, whatever the
distribution and however few the reference. Bets against uniform ranks then win nothing on average, and the
chance that their wealth ever reaches 1 / alpha is at most alpha (Ville's inequality).
"""

from bisect import bisect_left, bisect_right, insort

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIRECTIONS", "bet_factors", "online_ranks", "pulls", "wealth"]

Floats = NDArray[np.float64]

DIRECTIONS = ("higher", "lower", "more scattered", "less scattered")
# Bounded, so that no image changes the wealth by more than a factor of 1.8: one odd part raises nothing.
_STRENGTHS = np.array([0.4, 0.8])
# Wealth beyond that is not counted; what a martingale gives away it may not lose.
_MOST = 1e200


def online_ranks(reference: Floats, stream: Floats, chance: Floats) -> Floats:
    """Share of the reference and of earlier values that lie below each value; ties are broken by ``chance``.

    Args:
        reference: (m,) values of before; may be empty.
        stream: (n,) values in their order.
        chance: (n,) independent uniform numbers in [0, 1].
    Returns:
        (n,) ranks in [0, 1], uniform and independent while reference and stream are exchangeable.
    """
    seen = sorted(reference.tolist())
    ranks = np.empty(len(stream))
    for at, value in enumerate(stream.tolist()):
        below = bisect_left(seen, value)
        equal = bisect_right(seen, value) - below + 1
        ranks[at] = (below + chance[at] * equal) / (len(seen) + 1)
        insort(seen, value)
    return ranks


def pulls(ranks: Floats) -> Floats:
    """(n, 4) how much each rank in [0, 1] speaks for each of :data:`DIRECTIONS`, -1 to 1, 0 on average."""
    up, out = 2 * ranks - 1, 4 * abs(ranks - 0.5) - 1
    return np.stack([up, -up, out, -out], axis=1)


def bet_factors(pull: Floats) -> Floats:
    """(n, 2 d) factors by which bets on (n, d) pulls multiply what was put on them: a mild and a bold one."""
    factors: Floats = 1 + pull[:, :, None] * _STRENGTHS
    return factors.reshape(len(pull), 2 * pull.shape[1])


def wealth(factors: Floats, window: int) -> tuple[Floats, Floats]:
    """What a stake of 1 has become after each value, and what each bet has.

    The stake is spread evenly over all bets and over all starts in the window (the statistic of Shiryaev and
    Roberts, over the window's length): nobody knows which way something changes, or when.

    Args:
        factors: (n, b) of the bets, at least 0, and at most 1 on average while nothing has changed.
        window: values for which the stake is meant, at least n.
    Returns:
        (n,) wealth, which starts at 1 and grows on average only by a change, and (n, b) what each bet holds.
    """
    held = np.zeros(factors.shape[1])
    each = np.empty_like(factors)
    for at, factor in enumerate(factors):
        held = np.minimum((held + 1) * factor, _MOST)
        each[at] = held
    waiting = window - np.arange(1, len(factors) + 1)
    return (each.mean(axis=1) + waiting) / window, each
