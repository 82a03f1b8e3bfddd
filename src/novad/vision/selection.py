"""Choice of the explainer candidate that finds most anomalies by itself, on the tuning split."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from novad.vision.calibration import fit_normal_scale
from novad.vision.fusion import Floats, tune_weight
from novad.vision.novelty import Candidate

__all__ = ["candidate_table", "choose"]


def candidate_table(
    candidates: Sequence[Candidate],
    familiarity: Floats,
    novelty: NDArray[np.floating],
    calibration: NDArray[np.bool_],
    anomalous: NDArray[np.bool_],
    max_false_positive_rate: float,
    equal_weight_prior: float,
) -> list[dict[str, object]]:
    """Figures of every candidate, alone and fused with familiarity.

    Args:
        candidates: K ways to score novelty.
        familiarity: (n,) raw scores.
        novelty: (n, K) raw scores.
        calibration: (n,) which images fit the score scales.
        anomalous: (n,) which are anomalies; all others count as normals.
        max_false_positive_rate: allowed on this line.
        equal_weight_prior: see ``tune_weight``.
    Returns:
        Per candidate its fields and ``auroc``, ``miss_rate`` (alone), ``hybrid_auroc``,
        ``hybrid_miss_rate`` and ``weight`` (fused, at the weight that ``tune_weight`` chooses).
    """
    known = fit_normal_scale(familiarity[calibration])(familiarity)
    table = []
    for candidate, raw in zip(candidates, novelty.T, strict=True):
        unknown = fit_normal_scale(raw[calibration])(raw)
        choice = tune_weight(
            (known[~anomalous], unknown[~anomalous]),
            (known[anomalous], unknown[anomalous]),
            max_false_positive_rate,
            equal_weight_prior,
        )
        alone = choice.table[-1]
        fused = next(row for row in choice.table if row["weight"] == choice.weight)
        table.append(
            {
                **vars(candidate),
                "auroc": alone["auroc"],
                "miss_rate": alone["miss_rate"],
                "weight": choice.weight,
                "hybrid_auroc": fused["auroc"],
                "hybrid_miss_rate": fused["miss_rate"],
            }
        )
    return table


def choose(candidates: Sequence[Candidate], table: Sequence[dict[str, object]]) -> Candidate:
    """The candidate of highest AUROC alone, ties by the fused one.

    Chosen by its fused figure, the best of many hundred candidates is one that fits familiarity's errors on
    the tuning split: on held-out images it was worse than familiarity alone
    (``docs/decisions/novelty-and-fusion.md``).
    """
    figures = np.asarray([(row["auroc"], row["hybrid_auroc"]) for row in table], np.float64)
    return candidates[int(np.lexsort((-figures[:, 1], -figures[:, 0]))[0])]
