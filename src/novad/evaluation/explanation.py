"""Quality of explanations: where their energy lies, and whether they depend on the network."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

__all__ = ["deletion_insertion", "energy_in_mask", "pointing_game", "randomisation_similarity"]

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]
Picture = NDArray[Any]


def energy_in_mask(heat: Map, mask: Mask) -> float:
    """Share of an (H, W) map that lies on the defect (Wang et al. 2020), negative values counted as 0.

    0 for a map without positive values.
    """
    energy = np.maximum(heat, 0, dtype=np.float64)
    total = float(energy.sum())
    return float(energy[mask].sum()) / total if total > 0 else 0.0


def pointing_game(heat: Map, mask: Mask) -> bool:
    """Whether the map's highest value lies on the defect and nowhere else (Zhang et al. 2018)."""
    return bool(heat.max(initial=-np.inf, where=mask) > heat.max(initial=-np.inf, where=~mask))


def randomisation_similarity(first: Map, second: Map) -> float:
    """Spearman rank correlation of two maps (Adebayo et al. 2018); 0 where one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second, axis=None).statistic)


def deletion_insertion(
    image: Picture, heat: Map, score: Callable[[Picture], float], steps: int = 10
) -> tuple[float, float]:
    """Mean score while top pixels are greyed out, and while only they are shown (Petsiuk et al. 2018).

    Args:
        image: (H, W, 3) of any type; ``score`` is given arrays of the same.
        heat: (H, W) explanation of its anomaly score.
        score: anomaly score of an image.
        steps: equal shares of the pixels, highest first, between the first picture and the last.
    Returns:
        (deletion, insertion), areas under the score against the share of pixels, 0 to 1: a faithful map
        makes the score fall early in the first and rise early in the second.
    """
    # Position in the order, highest first; equal pixels keep their place in the picture.
    rank = np.empty(heat.size, np.int64)
    rank[np.argsort(-heat, axis=None, kind="stable")] = np.arange(heat.size)
    grey = np.full_like(image, image.mean())
    shares = np.linspace(0, 1, steps + 1)
    deletion, insertion = [], []
    for share in shares:
        here = (rank < round(share * heat.size)).reshape(heat.shape)[..., None]
        deletion.append(score(np.where(here, grey, image)))
        insertion.append(score(np.where(here, image, grey)))
    return float(np.trapezoid(deletion, shares)), float(np.trapezoid(insertion, shares))
