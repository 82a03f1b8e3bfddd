"""Do the 95 % intervals hold what they promise? On simulated test splits, where the truth is known."""

from typing import Any

import numpy as np
from scipy.stats import norm

from benchmarks.inputs import Request
from benchmarks.report import Report
from novad.evaluation.intervals import bootstrap_intervals, paired_comparison
from novad.evaluation.metrics import FALSE_POSITIVE_RATES, fnr_at_fpr

__all__ = ["measure"]

SPLITS, RESAMPLES, SHIFT, NOISE = 400, 400, 2.0, 0.7
SIZES = ((28, 55), (60, 60), (170, 300), (300, 300))


def measure(_: Request) -> Report:
    """Share of simulated splits whose interval has the truth, and how far the miss rates scatter."""
    truth = {"image_auroc": float(norm.cdf(SHIFT / np.sqrt(2)))}
    for name, rate in FALSE_POSITIVE_RATES.items():
        truth[f"fnr_{name}"] = float(norm.cdf(norm.isf(rate) - SHIFT))
    return Report(
        "Bootstrap intervals on simulated test splits",
        {"splits": SPLITS, "resamples": RESAMPLES, "anomalies": f"N({SHIFT}, 1)", "normals": "N(0, 1)"},
        [_row(normals, anomalies, truth) for normals, anomalies in SIZES],
    )


def _row(normals: int, anomalies: int, truth: dict[str, float]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [normals, anomalies])
    held, misses, surprises = dict.fromkeys(truth, 0), [], 0
    for seed in range(SPLITS):
        scores = rng.normal(size=len(labels)) + SHIFT * labels
        found = bootstrap_intervals({"it": scores}, labels, {"it": SHIFT / 2}, RESAMPLES, seed)["it"]
        for name, value in truth.items():
            interval = found[name]
            held[name] += interval is not None and interval[0] <= value <= interval[1]
        misses.append([fnr_at_fpr(scores, labels, rate) for rate in FALSE_POSITIVE_RATES.values()])
        one, other = (scores + NOISE * rng.normal(size=len(labels)) for _ in range(2))
        told = paired_comparison(one, other, labels, RESAMPLES, seed)
        surprises += told["auroc_difference"]["p_value"] < 0.05
    scatter = np.std(np.asarray(misses, np.float64), axis=0)
    return {
        "normals + anomalies": f"{normals} + {anomalies}",
        **{f"{name} held": count / SPLITS for name, count in held.items()},
        "paired test, no difference, p < 0.05": surprises / SPLITS,
        **{
            f"fnr_{name}: truth, scatter": f"{truth[f'fnr_{name}']:.2f}, {each:.2f}"
            for name, each in zip(FALSE_POSITIVE_RATES, scatter, strict=True)
        },
    }
