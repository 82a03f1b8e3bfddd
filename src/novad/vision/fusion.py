"""Fusion: the weight of novelty in the hybrid score, chosen on the tuning split."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from novad.errors import CalibrationError

__all__ = ["WEIGHTS", "FusionChoice", "hybrid_scores", "miss_rate", "standing", "tune_weight"]

Floats = NDArray[np.float64]
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))


@dataclass(frozen=True)
class FusionChoice:
    """The chosen weight and what every candidate weight would have missed.

    Attributes:
        weight: share of novelty in the hybrid score.
        table: per weight: miss rate at the allowed false-positive rate, AUROC, and the loss that decides.
    """

    weight: float
    table: list[dict[str, float]]


def hybrid_scores(familiarity: Floats, novelty: Floats, weight: float | Floats) -> Floats:
    """(1 - weight) familiarity + weight novelty, both calibrated; (W, 1) weights give (W, n) scores."""
    return (1 - weight) * familiarity + weight * novelty


def miss_rate(normal: Floats, anomalous: Floats, false_positive_rate: float) -> Floats:
    """Share of anomalies at or below the threshold that at most ``false_positive_rate`` of normals exceed.

    Args:
        normal: (..., n) scores.
        anomalous: (..., m) scores.
        false_positive_rate: 0 to 1.
    Returns:
        (...) one share per row.
    """
    count = normal.shape[-1]
    alarms = min(int(np.floor(false_positive_rate * count + 1e-9)), count - 1)
    threshold = np.sort(normal, axis=-1)[..., [count - 1 - alarms]]
    return np.asarray(np.mean(anomalous <= threshold, axis=-1), np.float64)


def tune_weight(
    normal: tuple[Floats, Floats],
    anomalous: tuple[Floats, Floats],
    max_false_positive_rate: float,
    equal_weight_prior: float,
) -> FusionChoice:
    """Weight with the best AUROC on the tuning split, pulled toward equal weights where evidence is thin.

    AUROC uses every pair of images, a miss rate at one quantile of a few dozen normals jumps: chosen by
    misses, the weight missed more on held-out images (``docs/decisions/novelty-and-fusion.md``). The pull is
    ``equal_weight_prior`` / n anomalies x |2 weight - 1|, so that it fades as anomalies come in.

    Args:
        normal: calibrated (familiarity, novelty) of normals.
        anomalous: the same of labelled (or synthetic) anomalies.
        max_false_positive_rate: allowed on this line; the misses in the table are taken there.
        equal_weight_prior: strength of the pull, in anomalies.
    Raises:
        CalibrationError: no normal or no anomaly.
    """
    if not len(normal[0]) or not len(anomalous[0]):
        raise CalibrationError("fusion needs at least one normal and one anomalous image")
    weights = np.array(WEIGHTS)[:, None]
    good, bad = hybrid_scores(*normal, weights), hybrid_scores(*anomalous, weights)
    missed = miss_rate(good, bad, max_false_positive_rate)
    table = []
    for at, weight in enumerate(WEIGHTS):
        auroc = float(standing(bad[at], good[at]).mean())
        pull = equal_weight_prior / bad.shape[1] * abs(2 * weight - 1)
        table.append(
            {
                "weight": weight,
                "miss_rate": float(missed[at]),
                "auroc": auroc,
                "loss": round(1 - auroc + pull, 9),
            }
        )
    best = min(table, key=lambda row: (row["loss"], abs(row["weight"] - 0.5)))
    return FusionChoice(best["weight"], table)


def standing(values: NDArray[np.floating], among: NDArray[np.floating]) -> Floats:
    """Share of ``among`` below each of ``values``, ties half: its mean is the AUROC (Mann-Whitney)."""
    ordered = np.sort(among)
    below = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(below / (2 * len(ordered)), np.float64)
