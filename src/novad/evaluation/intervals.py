"""Bootstrap intervals: how far the figures could move with other test images of the same kind."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novad.evaluation.metrics import FALSE_POSITIVE_RATES, allowed_alarms

__all__ = ["bootstrap_intervals", "paired_comparison"]

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]
Counts = NDArray[np.int64]
BLOCK = 256


def bootstrap_intervals(
    scores: Mapping[str, Floats],
    labels: Labels,
    thresholds: Mapping[str, float],
    resamples: int,
    seed: int,
) -> dict[str, dict[str, list[float] | None]]:
    """95 % percentile intervals of the image figures, normals and anomalies resampled apart.

    Args:
        scores: (n,) per score, on the same images.
        labels: (n,) 1 for anomalous.
        thresholds: per score, for F1; a score without one has no F1.
        resamples: of the bootstrap (Efron and Tibshirani 1993); 0 gives no interval.
        seed: of the resampling; every score sees the same resamples.
    Returns:
        Per score and figure ``[low, high]``; empty without both classes.
    """
    if not _resamplable(labels, resamples):
        return {name: {} for name in scores}
    samples: dict[str, list[dict[str, Floats]]] = {name: [] for name in scores}
    for times in _resampled(labels, resamples, seed):
        for name, values in scores.items():
            samples[name].append(_figures(values, labels, times, thresholds.get(name)))
    return {
        name: {figure: _interval(sample) for figure, sample in _joined(blocks).items()}
        for name, blocks in samples.items()
    }


def paired_comparison(
    first: Floats, second: Floats, labels: Labels, resamples: int, seed: int
) -> dict[str, Any]:
    """How much better ``first`` is than ``second`` on the same images, by the paired bootstrap.

    Args:
        first: (n,) scores.
        second: (n,) scores of the same images.
        labels: (n,) 1 for anomalous.
        resamples: of the bootstrap; 0 gives values without intervals.
        seed: of the resampling.
    Returns:
        ``auroc_difference`` and ``fnr_at_fpr_*_difference`` (negative: fewer misses), each with ``value``,
        ``ci95`` and the two-sided ``p_value`` of no difference; ``false_negative_reduction`` per rate, 1 -
        misses of first / misses of second, with ``value`` and ``ci95``, both over what is defined: where
        second misses nothing there is nothing to reduce. Empty without both classes.
    """
    if not _resamplable(labels, 1):
        return {}
    value = _differences(first, second, labels, np.ones((1, len(labels)), np.int64))
    blocks = [_differences(first, second, labels, times) for times in _resampled(labels, resamples, seed)]
    spread = _joined(blocks)
    told: dict[str, Any] = {"false_negative_reduction": {}}
    for name, single in value.items():
        sample = spread.get(name, np.empty(0))
        entry = {"value": _number(single[0]), "ci95": _interval(sample)}
        if name.startswith("at_fpr"):
            told["false_negative_reduction"][name] = entry
        else:
            told[name] = {**entry, "p_value": _p_value(sample)}
    return told


def _differences(first: Floats, second: Floats, labels: Labels, times: Counts) -> dict[str, Floats]:
    mine, other = _figures(first, labels, times), _figures(second, labels, times)
    found = {"auroc_difference": mine["image_auroc"] - other["image_auroc"]}
    for name in FALSE_POSITIVE_RATES:
        found[f"fnr_{name}_difference"] = mine[f"fnr_{name}"] - other[f"fnr_{name}"]
        misses = np.where(other[f"fnr_{name}"] > 0, other[f"fnr_{name}"], np.nan)
        found[name] = 1 - mine[f"fnr_{name}"] / misses
    return found


def _resamplable(labels: Labels, resamples: int) -> bool:
    return bool(resamples and (labels == 0).any() and (labels == 1).any())


def _resampled(labels: Labels, resamples: int, seed: int) -> Iterator[Counts]:
    """How often each image is drawn, (block, n) at a time; both classes keep their size."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, BLOCK):
        rows = min(BLOCK, resamples - start)
        times = np.zeros((rows, len(labels)), np.int64)
        for label in (0, 1):
            places = np.flatnonzero(labels == label)
            drawn = places[rng.integers(0, len(places), (rows, len(places)))]
            np.add.at(times, (np.arange(rows)[:, None], drawn), 1)
        yield times


def _figures(
    values: Floats, labels: Labels, times: Counts, threshold: float | None = None
) -> dict[str, Floats]:
    """Figures of every resample, (resamples,) each, from counts at the distinct scores.

    Images of equal score share a step, from the highest score down; a step is entered whole, so ties count
    half in the AUROC and are all missed where they lie on the threshold.
    """
    steps = np.unique(-values, return_inverse=True)[1]
    order = np.argsort(steps, kind="stable")
    starts = np.flatnonzero(np.diff(steps[order], prepend=-1))
    normal = np.add.reduceat((times * (labels == 0))[:, order], starts, axis=1)
    anomalous = np.add.reduceat((times * (labels == 1))[:, order], starts, axis=1)
    alarms, hits = normal.cumsum(axis=1), anomalous.cumsum(axis=1)
    normals, anomalies = int((labels == 0).sum()), int((labels == 1).sum())
    found = {
        "image_auroc": (normal * (hits - anomalous / 2)).sum(axis=1) / (normals * anomalies),
        "image_aupr": (anomalous * hits / np.maximum(hits + alarms, 1)).sum(axis=1) / anomalies,
    }
    for name, rate in FALSE_POSITIVE_RATES.items():
        at = np.argmax(alarms > allowed_alarms(normals, rate), axis=1)[:, None]
        caught = np.take_along_axis(hits - anomalous, at, axis=1)[:, 0]
        found[f"fnr_{name}"] = 1 - caught / anomalies
    if threshold is not None:
        above = times * (values > threshold)
        true, false = above[:, labels == 1].sum(axis=1), above[:, labels == 0].sum(axis=1)
        found["f1"] = 2 * true / (true + false + anomalies)
    return found


def _joined(blocks: list[dict[str, Floats]]) -> dict[str, Floats]:
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]} if blocks else {}


def _interval(sample: Floats) -> list[float] | None:
    finite = sample[np.isfinite(sample)]
    if not len(finite):
        return None
    low, high = np.quantile(finite, [0.025, 0.975])
    return [round(float(low), 6), round(float(high), 6)]


def _p_value(differences: Floats) -> float | None:
    """Twice the share of resamples on the rarer side of zero, the observed one counted among them."""
    if not len(differences):
        return None
    rarer = min((differences <= 0).sum(), (differences >= 0).sum())
    return round(min(1.0, 2 * (float(rarer) + 1) / (len(differences) + 1)), 6)


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
