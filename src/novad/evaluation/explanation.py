"""Quality of explanations: where their energy lies, and whether they depend on the network."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.stats import spearmanr

__all__ = ["energy_in_mask", "grown", "pointing_game", "randomisation_similarity"]

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]


def energy_in_mask(heat: Map, mask: Mask) -> float:
    """Share of an (H, W) map that lies on the defect (Wang et al. 2020), negative values counted as 0.

    0 for a map without positive values.
    """
    energy = np.maximum(heat, 0, dtype=np.float64)
    total = float(energy.sum())
    return float(energy[mask].sum()) / total if total > 0 else 0.0


def grown(mask: Mask, margin: float) -> Mask:
    """The (H, W) defect with what lies within ``margin`` pixels of it; no defect has nothing near it."""
    return np.asarray(distance_transform_edt(~mask) <= margin) if mask.any() else mask


def pointing_game(heat: Map, mask: Mask) -> bool:
    """Whether the map's highest value lies on the defect and nowhere else (Zhang et al. 2018)."""
    return bool(heat.max(initial=-np.inf, where=mask) > heat.max(initial=-np.inf, where=~mask))


def randomisation_similarity(first: Map, second: Map) -> float:
    """Spearman rank correlation of two maps (Adebayo et al. 2018); 0 where one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second, axis=None).statistic)
