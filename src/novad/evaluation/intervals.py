"""Bootstrap intervals: how far the figures could move with other test images of the same kind."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novad.evaluation.metrics import image_aupr

__all__ = ["bootstrap_intervals", "paired_comparison"]

Floats = NDArray[np.float64]
RATES = {"fnr_at_fpr_01": 0.01, "fnr_at_fpr_05": 0.05}


def bootstrap_intervals(
    scores: Mapping[str, Floats],
    labels: NDArray[np.integer],
    thresholds: Mapping[str, float],
    resamples: int,
    seed: int,
) -> dict[str, dict[str, list[float] | None]]:
    """95 % percentile intervals of the image figures, normals and anomalies resampled apart.

    Args:
        scores: (n,) per score, on the same images.
        labels: (n,) 1 for anomalous.
        thresholds: per score, for F1.
        resamples: of the bootstrap (Efron and Tibshirani 1993); 0 gives no interval.
        seed: of the resampling.
    Returns:
        Per score and figure ``[low, high]``; empty without both classes.
    """
    draws = _draws(labels, resamples, seed)
    if draws is None:
        return {name: {} for name in scores}
    found: dict[str, dict[str, list[float] | None]] = {}
    for name, values in scores.items():
        normal, anomalous = values[labels == 0][draws[0]], values[labels == 1][draws[1]]
        figures = _figures(normal, anomalous)
        figures["f1"] = _f1(normal, anomalous, thresholds[name])
        figures["image_aupr"] = _aupr(normal, anomalous, most=200)
        found[name] = {figure: _interval(sample) for figure, sample in figures.items()}
    return found


def paired_comparison(
    first: Floats, second: Floats, labels: NDArray[np.integer], resamples: int, seed: int
) -> dict[str, Any]:
    """How much better ``first`` is than ``second`` on the same images, by the paired bootstrap.

    Returns:
        ``auroc_difference``, ``fnr_at_fpr_*_difference`` (negative: fewer misses) and
        ``false_negative_reduction`` (1 - misses of first / misses of second, None where second misses none),
        each with ``value`` and ``ci95``; empty without both classes.
    """
    draws = _draws(labels, resamples, seed)
    whole = _draws(labels, 1, seed, identity=True)
    if whole is None:
        return {}
    value = _differences(first, second, labels, whole)
    spread = _differences(first, second, labels, draws) if draws is not None else {}
    told = {
        name: {"value": _number(each[0]), "ci95": _interval(spread[name]) if name in spread else None}
        for name, each in value.items()
    }
    reduction = {key.removeprefix("reduction_"): told.pop(key) for key in list(told) if "reduction" in key}
    return {**told, "false_negative_reduction": reduction}


def _differences(
    first: Floats, second: Floats, labels: NDArray[np.integer], draws: tuple[Any, Any]
) -> dict[str, Floats]:
    mine = _figures(first[labels == 0][draws[0]], first[labels == 1][draws[1]])
    other = _figures(second[labels == 0][draws[0]], second[labels == 1][draws[1]])
    found = {"auroc_difference": mine["image_auroc"] - other["image_auroc"]}
    for name in RATES:
        found[f"{name}_difference"] = mine[name] - other[name]
        with np.errstate(divide="ignore", invalid="ignore"):
            found[f"reduction_{name.removeprefix('fnr_')}"] = np.where(
                other[name] > 0, 1 - mine[name] / other[name], np.nan
            )
    return found


def _draws(
    labels: NDArray[np.integer], resamples: int, seed: int, identity: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Positions among normals and among anomalies, (resamples, count) each."""
    normals, anomalies = int((labels == 0).sum()), int((labels == 1).sum())
    if not normals or not anomalies or resamples == 0:
        return None
    if identity:
        return np.arange(normals)[None], np.arange(anomalies)[None]
    rng = np.random.default_rng(seed)
    return rng.integers(0, normals, (resamples, normals)), rng.integers(0, anomalies, (resamples, anomalies))


def _figures(normal: Floats, anomalous: Floats) -> dict[str, Floats]:
    """AUROC and miss rates of every resample, (resamples,) each."""
    ordered = np.sort(normal, axis=1)
    count = ordered.shape[1]
    auroc = np.asarray(
        [
            (np.searchsorted(good, bad, "left") + np.searchsorted(good, bad, "right")).mean() / (2 * count)
            for good, bad in zip(ordered, anomalous, strict=True)
        ]
    )
    found = {"image_auroc": auroc}
    for name, rate in RATES.items():
        allowed = min(int(np.floor(rate * count + 1e-9)), count - 1)
        threshold = ordered[:, count - 1 - allowed]
        found[name] = (anomalous <= threshold[:, None]).mean(axis=1)
    return found


def _f1(normal: Floats, anomalous: Floats, threshold: float) -> Floats:
    hits, alarms = (anomalous > threshold).sum(1), (normal > threshold).sum(1)
    return np.asarray(2 * hits / np.maximum(hits + alarms + anomalous.shape[1], 1), np.float64)


def _aupr(normal: Floats, anomalous: Floats, most: int) -> Floats:
    """Average precision has no closed form over resamples; a few hundred are enough for its interval."""
    labels = np.r_[np.zeros(normal.shape[1], int), np.ones(anomalous.shape[1], int)]
    return np.asarray(
        [
            image_aupr(np.r_[good, bad], labels)
            for good, bad in zip(normal[:most], anomalous[:most], strict=True)
        ],
        np.float64,
    )


def _interval(sample: Floats) -> list[float] | None:
    finite = sample[np.isfinite(sample)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [0.025, 0.975])
    return [round(float(low), 6), round(float(high), 6)]


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
