"""Plots of one line's evaluation; equal scores give equal files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

__all__ = ["candidates_plot", "false_negatives_plot", "roc_plot", "score_histograms"]

COLOURS = {"familiarity": "#3566a8", "novelty": "#d1782b", "hybrid": "#2a7f4f"}
OTHER_COLOURS = ("#8c564b", "#9467bd", "#e377c2", "#17a2b8", "#7f7f7f", "#bcbd22")


def roc_plot(scores: pd.DataFrame, path: Path, names: Sequence[str] = tuple(COLOURS)) -> None:
    """ROC curves of scores, by default the three of a line; others are drawn dashed."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name, style in _styles(names).items():
        false_positive, true_positive, _ = roc_curve(scores["label"], scores[name])
        axes.plot(false_positive, true_positive, label=name, **style)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title="ROC, test split")
    axes.legend()
    _save(figure, path)


def false_negatives_plot(scores: pd.DataFrame, path: Path, names: Sequence[str] = tuple(COLOURS)) -> None:
    """Share of defects missed against the allowed false-positive rate, up to 20 %."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for name, style in _styles(names).items():
        false_positive, true_positive, _ = roc_curve(scores["label"], scores[name], drop_intermediate=False)
        axes.step(false_positive, 1 - true_positive, where="post", label=name, **style)
    axes.set(
        xlim=(0, 0.2), ylim=(0, None), xlabel="false-positive rate", ylabel="defects missed",
        title="Missed defects, test split",
    )  # fmt: skip
    axes.legend()
    _save(figure, path)


def score_histograms(
    scores: pd.DataFrame,
    thresholds: Mapping[str, float],
    path: Path,
    names: Sequence[str] = tuple(COLOURS),
) -> None:
    """Scores of normal and anomalous test images, with the threshold of each that has a finite one."""
    rows = -(-len(names) // 3)
    figure = Figure(figsize=(11, 3.4 * rows), layout="constrained")
    places = figure.subplots(rows, 3, squeeze=False).ravel()
    for spare in places[len(names) :]:
        figure.delaxes(spare)
    for axes, name in zip(places, names, strict=False):
        # The few highest scores would squeeze all others into one bar: they are counted in the last.
        low, high = float(scores[name].min()), float(np.quantile(scores[name], 0.98))
        edges = np.linspace(low, high if high > low else low + 1, 30)
        for label, colour, title in ((0, "#5b9a68", "normal"), (1, "#b5423c", "anomalous")):
            values = scores.loc[scores["label"] == label, name].clip(upper=edges[-1])
            axes.hist(values, bins=edges.tolist(), color=colour, alpha=0.6, label=title)
        if np.isfinite(thresholds.get(name, np.inf)):
            axes.axvline(thresholds[name], color="black", linestyle="--", label="threshold")
        axes.set(title=name, xlabel="calibrated score" if name in COLOURS else "score", ylabel="images")
    places[min(len(names), 3) - 1].legend()
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


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A line style for each score: fixed colours for ours, dashes for others, in their order."""
    others = [name for name in names if name not in COLOURS]
    return {
        name: {"color": COLOURS[name], "linestyle": "-"}
        if name in COLOURS
        else {"color": OTHER_COLOURS[others.index(name) % len(OTHER_COLOURS)], "linestyle": "--"}
        for name in names
    }


def _save(figure: Figure, path: Path) -> None:
    # Not savefig: it draws every figure twice, and drawing is what a plot costs.
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(path, metadata={"Software": None})
