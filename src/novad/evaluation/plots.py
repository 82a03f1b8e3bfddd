"""Plots of one line's evaluation; equal scores give equal files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

__all__ = ["candidates_plot", "false_negatives_plot", "roc_plot", "score_histograms"]

COLOURS = {"familiarity": "#3566a8", "novelty": "#d1782b", "hybrid": "#2a7f4f"}


def roc_plot(scores: pd.DataFrame, path: Path) -> None:
    """ROC curves of the three scores."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name, colour in COLOURS.items():
        false_positive, true_positive, _ = roc_curve(scores["label"], scores[name])
        axes.plot(false_positive, true_positive, color=colour, label=name)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title="ROC, test split")
    axes.legend()
    _save(figure, path)


def false_negatives_plot(scores: pd.DataFrame, path: Path) -> None:
    """Share of defects missed against the allowed false-positive rate, up to 20 %."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for name, colour in COLOURS.items():
        false_positive, true_positive, _ = roc_curve(scores["label"], scores[name], drop_intermediate=False)
        axes.step(false_positive, 1 - true_positive, where="post", color=colour, label=name)
    axes.set(
        xlim=(0, 0.2), ylim=(0, None), xlabel="false-positive rate", ylabel="defects missed",
        title="Missed defects, test split",
    )  # fmt: skip
    axes.legend()
    _save(figure, path)


def score_histograms(scores: pd.DataFrame, thresholds: Mapping[str, float], path: Path) -> None:
    """Scores of normal and anomalous test images, with the threshold of each score where it is finite."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), COLOURS, strict=True):
        # The few highest scores would squeeze all others into one bar: they are counted in the last.
        low, high = float(scores[name].min()), float(np.quantile(scores[name], 0.98))
        edges = np.linspace(low, high if high > low else low + 1, 30)
        for label, colour, title in ((0, "#5b9a68", "normal"), (1, "#b5423c", "anomalous")):
            values = scores.loc[scores["label"] == label, name].clip(upper=edges[-1])
            axes.hist(values, bins=edges.tolist(), color=colour, alpha=0.6, label=title)
        if np.isfinite(thresholds[name]):
            axes.axvline(thresholds[name], color="black", linestyle="--", label="threshold")
        axes.set(title=name, xlabel="calibrated score", ylabel="images")
    axes.legend()
    _save(figure, path)


def candidates_plot(candidates: Sequence[Mapping[str, Any]], path: Path) -> None:
    """AUROC of every novelty candidate on the tuning split, by explained layer and statistic."""
    table = pd.DataFrame(candidates)
    table["group"] = table["target"] + " " + table["statistic"]
    best = table.groupby("group")["auroc"].max().sort_values()
    figure = Figure(figsize=(8, 1 + 0.28 * len(best)), layout="constrained")
    axes = figure.subplots()
    for place, group in enumerate(best.index):
        values = table.loc[table["group"] == group, "auroc"]
        axes.plot(values, [place] * len(values), "o", color=COLOURS["novelty"], alpha=0.3, markersize=4)
    axes.set_yticks(range(len(best)), best.index.tolist())
    axes.set(xlabel="AUROC alone, tuning split", title="Novelty candidates")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", metadata={"Software": None})
