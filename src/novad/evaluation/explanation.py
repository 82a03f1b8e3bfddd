"""Quality of explanations: where their energy lies, and whether they depend on the network."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

__all__ = ["deletion_insertion", "energy_in_mask", "pointing_game", "randomisation_similarity"]

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]


def energy_in_mask(heat: Map, mask: Mask) -> float:
    """Share of a non-negative (H, W) map that lies on the defect (Wang et al. 2020); 0 for an empty map."""
    total = float(heat.sum())
    return float(heat[mask].sum()) / total if total > 0 else 0.0


def pointing_game(heat: Map, mask: Mask) -> bool:
    """Whether the map's highest pixel lies on the defect (Zhang et al. 2018)."""
    return bool(mask.reshape(-1)[int(np.argmax(heat))])


def randomisation_similarity(first: Map, second: Map) -> float:
    """Spearman rank correlation of two maps (Adebayo et al. 2018); 0 where one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second, axis=None).statistic)


def deletion_insertion(
    image: NDArray[np.floating], heat: Map, score: Callable[[NDArray[np.floating]], float], steps: int = 10
) -> tuple[float, float]:
    """Mean score while top pixels are greyed out, and while only they are shown (Petsiuk et al. 2018).

    Args:
        image: (H, W, 3).
        heat: (H, W) explanation of its anomaly score.
        score: anomaly score of an image.
        steps: pictures along the way.
    Returns:
        (deletion, insertion): a faithful map makes the first fall early and the second rise early.
    """
    order = np.argsort(-heat, axis=None, kind="stable")
    grey = np.full_like(image, image.mean())
    deletion, insertion = [], []
    for step in range(steps + 1):
        shown = np.zeros(heat.size, bool)
        shown[order[: round(step / steps * heat.size)]] = True
        here = shown.reshape(heat.shape)[..., None]
        deletion.append(score(np.where(here, grey, image)))
        insertion.append(score(np.where(here, image, grey)))
    return float(np.mean(deletion)), float(np.mean(insertion))
