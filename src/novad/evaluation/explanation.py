"""Quality of explanations: where their energy lies, and whether they depend on the network."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.stats import spearmanr

__all__ = ["energy_in_mask", "pointing_game", "randomisation_similarity"]

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]


def energy_in_mask(heat: Map, mask: Mask) -> float:
    """Share of an (H, W) map that lies on the defect (Wang et al. 2020), negative values counted as 0.

    0 for a map without positive values.
    """
    energy = np.maximum(heat, 0, dtype=np.float64)
    total = float(energy.sum())
    return float(energy[mask].sum()) / total if total > 0 else 0.0


def pointing_game(heat: Map, mask: Mask, margin: float = 0.0) -> bool:
    """Whether the map's highest value lies on the defect and nowhere else (Zhang et al. 2018).

    Args:
        heat: (H, W).
        mask: (H, W), true on the defect.
        margin: so many pixels beside it are a hit, too.
    """
    if margin > 0 and mask.any():
        mask = distance_transform_edt(~mask) <= margin
    return bool(heat.max(initial=-np.inf, where=mask) > heat.max(initial=-np.inf, where=~mask))


def randomisation_similarity(first: Map, second: Map) -> float:
    """Spearman rank correlation of two maps (Adebayo et al. 2018); 0 where one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second, axis=None).statistic)
