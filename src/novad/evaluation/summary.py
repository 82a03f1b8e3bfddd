"""The figures of ``metrics.json``, from the scores of the test split."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from novad.errors import CalibrationError
from novad.evaluation.intervals import bootstrap_intervals, paired_comparison
from novad.evaluation.metrics import FALSE_POSITIVE_RATES, f1_at, fnr_at_fpr, image_aupr, image_auroc
from novad.evaluation.parity import KINDS

__all__ = ["KINDS", "image_figures", "summarise"]


def summarise(
    scores: pd.DataFrame,
    thresholds: Mapping[str, float],
    pixel_figures: Mapping[str, Mapping[str, float | None]],
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Figures per score, what the hybrid saves over familiarity, and recall per defect type.

    Args:
        scores: one row per test image: ``path``, ``label``, ``defect_type`` and the three scores.
        thresholds: per score, the deployed one; for F1 and recall. Infinity calls nothing anomalous.
        pixel_figures: per score, from ``PixelFigures``.
        bootstrap: resamples of the intervals.
        seed: of the resampling.
    Returns:
        ``scores``, ``hybrid_vs_familiarity``, ``false_negative_reduction`` and ``by_defect_type``: plain
        values rounded to 6 places, None where a figure is not defined.
    Raises:
        CalibrationError: a score is not finite; the image is named.
    """
    labels = scores["label"].to_numpy()
    values = {kind: _finite(scores, kind) for kind in KINDS}
    intervals = bootstrap_intervals(values, labels, thresholds, bootstrap, seed)
    comparison = paired_comparison(values["hybrid"], values["familiarity"], labels, bootstrap, seed)
    reduction = comparison.pop("false_negative_reduction", {})
    return {
        "scores": {
            kind: {
                **image_figures(each, labels, thresholds[kind]),
                **pixel_figures[kind],
                "ci95": intervals[kind],
            }
            for kind, each in values.items()
        },
        "hybrid_vs_familiarity": comparison,
        "false_negative_reduction": {
            **{name: reduction.get(name, {}).get("value") for name in FALSE_POSITIVE_RATES},
            "ci95": {name: told["ci95"] for name, told in reduction.items()},
        },
        "by_defect_type": _by_defect_type(scores, thresholds),
    }


def image_figures(
    scores: NDArray[np.floating], labels: NDArray[np.integer], threshold: float | None = None
) -> dict[str, float | None]:
    """Image figures of one score, rounded to 6 places; None where not defined.

    Args:
        scores: (n,) of any scale.
        labels: (n,) 1 for anomalous.
        threshold: the deployed one; without it there is no F1.
    """
    return {
        "image_auroc": _rounded(image_auroc(scores, labels)),
        "image_aupr": _rounded(image_aupr(scores, labels)),
        **{
            f"fnr_{name}": _rounded(fnr_at_fpr(scores, labels, rate))
            for name, rate in FALSE_POSITIVE_RATES.items()
        },
        "f1": None if threshold is None else _rounded(f1_at(scores, labels, threshold)),
    }


def _finite(scores: pd.DataFrame, kind: str) -> NDArray[np.float64]:
    values = scores[kind].to_numpy(np.float64)
    broken = scores.loc[~np.isfinite(values), "path"]
    if len(broken):
        raise CalibrationError(
            f"{broken.iloc[0]}: its {kind} score is not finite ({len(broken)} such images)"
        )
    return values


def _by_defect_type(scores: pd.DataFrame, thresholds: Mapping[str, float]) -> dict[str, Any]:
    anomalous = scores[scores["label"] == 1]
    return {
        str(defect_type): {
            "count": len(rows),
            "recall": {kind: _rounded(float((rows[kind] > thresholds[kind]).mean())) for kind in KINDS},
        }
        for defect_type, rows in anomalous.groupby("defect_type")
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
