"""Choice of the explainer candidate, on the tuning split: the reference, unless another is surely better."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from novad.vision.calibration import fit_normal_scale, normal_scales
from novad.vision.fusion import Floats, standing, tune_weight
from novad.vision.novelty import Candidate

__all__ = ["candidate_table", "choose", "paired_gains", "surely_better"]


def candidate_table(
    candidates: Sequence[Candidate],
    familiarity: Floats,
    novelty: NDArray[np.floating],
    calibration: NDArray[np.bool_],
    anomalous: NDArray[np.bool_],
    chooses: NDArray[np.bool_],
    max_false_positive_rate: float,
    equal_weight_prior: float,
) -> list[dict[str, object]]:
    """Figures of every candidate, alone and fused with familiarity.

    Args:
        candidates: K ways to score novelty.
        familiarity: (n,) raw scores.
        novelty: (n, K) raw scores.
        calibration: (n,) which images fit the score scales.
        anomalous: (n,) which are anomalies; all others are normals.
        chooses: (n,) which count.
        max_false_positive_rate: allowed on this line.
        equal_weight_prior: see ``tune_weight``.
    Returns:
        Per candidate its fields and ``auroc``, ``miss_rate`` (alone), ``hybrid_auroc``,
        ``hybrid_miss_rate`` and ``weight`` (fused, at the weight that ``tune_weight`` chooses).
    """
    known = fit_normal_scale(familiarity[calibration])(familiarity)
    table, good, bad = [], chooses & ~anomalous, chooses & anomalous
    median, spread = normal_scales(novelty[calibration])
    calibrated = (novelty.astype(np.float64) - median) / spread
    for candidate, unknown in zip(candidates, calibrated.T, strict=True):
        choice = tune_weight(
            (known[good], unknown[good]),
            (known[bad], unknown[bad]),
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


def choose(
    candidates: Sequence[Candidate],
    reference: Candidate,
    novelty: NDArray[np.floating],
    anomalous: NDArray[np.bool_],
    confidence: float = 2.5,
) -> Candidate:
    """The candidate with the surest gain in AUROC over the reference, or the reference.

    The best of many hundred candidates on a few dozen anomalies is mostly luck: a candidate replaces the
    reference only when its paired gain exceeds ``confidence`` standard errors (DeLong et al. 1988), and the
    one with the largest gain beyond that wins. What was measured: ``docs/decisions/novelty-and-fusion.md``.

    Args:
        candidates: K ways to score novelty.
        reference: where the search starts; one of them.
        novelty: (n, K) raw scores.
        anomalous: (n,) which are anomalies; all others count as normals.
        confidence: standard errors that a gain must exceed.
    """
    return candidates[surely_better(novelty, candidates.index(reference), anomalous, confidence)]


def surely_better(
    scores: NDArray[np.floating], start: int, anomalous: NDArray[np.bool_], confidence: float
) -> int:
    """Column of (n, K) scores with the surest gain in AUROC over column ``start``, or ``start``."""
    gain, error = paired_gains(scores, start, anomalous)
    sure = gain - confidence * error
    best = int(sure.argmax())
    return best if sure[best] > 0 else start


def paired_gains(
    scores: NDArray[np.floating], start: int, anomalous: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Gain in AUROC of each column of (n, K) scores over column ``start``, and its standard error: (K,) each.

    Of the same images, so that what is common to both counts for nothing (DeLong et al. 1988).
    """
    among_normals, among_anomalies = _placements(scores, anomalous)
    gain = among_normals.mean(0) - among_normals[:, start].mean()
    spread = _variance(among_normals - among_normals[:, [start]])
    spread += _variance(among_anomalies - among_anomalies[:, [start]])
    return gain, np.sqrt(spread)


def _placements(novelty: NDArray[np.floating], anomalous: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Where each image stands in the other class: share of normals below, of anomalies above, ties half."""
    good, bad = novelty[~anomalous].astype(np.float64), novelty[anomalous].astype(np.float64)
    pairs = [standing(bad[:, at], good[:, at]) for at in range(novelty.shape[1])]
    others = [1 - standing(good[:, at], bad[:, at]) for at in range(novelty.shape[1])]
    return np.stack(pairs, axis=1), np.stack(others, axis=1)


def _variance(differences: Floats) -> Floats:
    """Variance of each column's mean; infinite for a single image, which proves nothing."""
    count = len(differences)
    if count < 2:
        return np.full(differences.shape[1], np.inf)
    return np.asarray(differences.var(axis=0, ddof=1) / count, np.float64)
