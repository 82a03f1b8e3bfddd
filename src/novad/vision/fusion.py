"""Fusion: the weight of novelty in the hybrid score, chosen on the tuning split."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from novad.errors import CalibrationError

__all__ = ["WEIGHTS", "FusionChoice", "hybrid_scores", "miss_rate", "tune_weight"]

Floats = NDArray[np.float64]
WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))


@dataclass(frozen=True)
class FusionChoice:
    """The chosen weight and what every candidate weight would have missed.

    Attributes:
        weight: share of novelty in the hybrid score.
        table: per weight: miss rate at the allowed false-positive rate, AUROC and the loss compared.
    """

    weight: float
    table: list[dict[str, float]]


def hybrid_scores(familiarity: Floats, novelty: Floats, weight: float) -> Floats:
    """(1 - weight) familiarity + weight novelty, both calibrated."""
    return (1 - weight) * familiarity + weight * novelty


def miss_rate(normal: Floats, anomalous: Floats, false_positive_rate: float) -> float:
    """Share of anomalies at or below the threshold that at most ``false_positive_rate`` of normals exceed."""
    ordered = np.sort(normal)[::-1]
    threshold = ordered[min(int(np.floor(false_positive_rate * len(ordered) + 1e-9)), len(ordered) - 1)]
    return float(np.mean(anomalous <= threshold))


def tune_weight(
    normal: tuple[Floats, Floats],
    anomalous: tuple[Floats, Floats],
    max_false_positive_rate: float,
    equal_weight_prior: float,
) -> FusionChoice:
    """Weight with the fewest misses near the allowed false-positive rate, ties by AUROC.

    Misses are averaged over half, once and twice the allowed rate: a single quantile of a few dozen normals
    jumps. A pull toward equal weights, ``equal_weight_prior`` / n anomalies, decides only where evidence is
    thin.

    Args:
        normal: calibrated (familiarity, novelty) of normals.
        anomalous: the same of labelled (or synthetic) anomalies.
        max_false_positive_rate: allowed on this line.
        equal_weight_prior: strength of the pull, in anomalies.
    Raises:
        CalibrationError: no normal or no anomaly.
    """
    if not len(normal[0]) or not len(anomalous[0]):
        raise CalibrationError("fusion needs at least one normal and one anomalous image")
    rates = [rate for rate in (0.5, 1.0, 2.0) if rate * max_false_positive_rate < 1]
    table = []
    for weight in WEIGHTS:
        good, bad = hybrid_scores(*normal, weight), hybrid_scores(*anomalous, weight)
        misses = [miss_rate(good, bad, rate * max_false_positive_rate) for rate in rates]
        auroc = _auroc(good, bad)
        pull = equal_weight_prior / len(bad) * abs(2 * weight - 1)
        loss = float(np.mean(misses)) + (1 - auroc) + pull
        table.append(
            {"weight": weight, "miss_rate": misses[rates.index(1.0)], "auroc": auroc, "loss": round(loss, 9)}
        )
    best = min(table, key=lambda row: (row["loss"], abs(row["weight"] - 0.5)))
    return FusionChoice(best["weight"], table)


def _auroc(normal: Floats, anomalous: Floats) -> float:
    """Probability that an anomaly scores above a normal, ties half (Mann-Whitney)."""
    ordered = np.sort(normal)
    below = np.searchsorted(ordered, anomalous, side="left")
    through = np.searchsorted(ordered, anomalous, side="right")
    return float(np.mean((below + through) / 2) / len(ordered))
