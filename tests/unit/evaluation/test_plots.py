"""Plots: they say what the figures say, and equal scores give equal files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from novad.evaluation import plots
from novad.evaluation.metrics import fnr_at_fpr

THRESHOLDS = {"familiarity": 1.0, "novelty": float("inf"), "hybrid": 1.5}


def made(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [50, 40])
    return pd.DataFrame({"label": labels} | {name: rng.normal(size=90) + labels for name in plots.COLOURS})


def table(seed: int = 0) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    return [
        {"target": target, "statistic": statistic, "auroc": float(rng.random())}
        for target in ("layer2", "layer3")
        for statistic in ("contribution", "alignment")
        for _ in range(3)
    ]


DRAWN: dict[str, Callable[[int, Path], None]] = {
    "roc": lambda seed, path: plots.roc_plot(made(seed), path),
    "misses": lambda seed, path: plots.false_negatives_plot(made(seed), path),
    "histograms": lambda seed, path: plots.score_histograms(made(seed), THRESHOLDS, path),
    "candidates": lambda seed, path: plots.candidates_plot(table(seed), path),
}


@pytest.mark.parametrize("name", DRAWN)
def test_equal_scores_give_equal_files_and_others_do_not(name: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for seed, path in zip((0, 0, 1), files, strict=True):
        DRAWN[name](seed, path)
    first, second, other = (path.read_bytes() for path in files)
    assert first == second
    assert first != other
    with Image.open(files[0]) as image:
        assert image.format == "PNG"
        assert set(image.info) <= {"dpi"}  # no software, no time


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    kept: list[Figure] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: kept.append(figure))
    return kept


def test_missed_defects_agree_with_the_figure_at_each_rate(figures: list[Figure], tmp_path: Path) -> None:
    scores = made()
    plots.false_negatives_plot(scores, tmp_path)
    for line in figures[0].axes[0].lines:
        assert line.get_drawstyle() == "steps-post", (
            "a rate that is not reached has the misses of the one below"
        )
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        for rate in (0.02, 0.05, 0.1):
            at_rate = y[x <= rate + 1e-12][-1]
            expected = fnr_at_fpr(scores[line.get_label()].to_numpy(), scores["label"].to_numpy(), rate)
            assert at_rate == pytest.approx(expected)


def test_missed_defects_keep_every_step_of_tied_scores(figures: list[Figure], tmp_path: Path) -> None:
    values = np.repeat(np.arange(20.0), 2)
    scores = pd.DataFrame({"label": [0, 1] * 20} | dict.fromkeys(plots.COLOURS, values))
    plots.false_negatives_plot(scores, tmp_path)
    line = figures[0].axes[0].lines[0]
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    np.testing.assert_allclose(x, np.arange(21) / 20)
    np.testing.assert_allclose(y, 1 - x)


def test_histograms_count_every_image_and_draw_finite_thresholds(
    figures: list[Figure], tmp_path: Path
) -> None:
    plots.score_histograms(made(), THRESHOLDS, tmp_path)
    for axes, threshold in zip(figures[0].axes, THRESHOLDS.values(), strict=True):
        assert sum(bar.get_height() for bar in axes.patches) == 90
        assert [line.get_xdata()[0] for line in axes.lines] == [threshold] * bool(np.isfinite(threshold))


def test_histograms_of_equal_scores_of_one_class_are_drawn(figures: list[Figure], tmp_path: Path) -> None:
    constant = pd.DataFrame({"label": [0, 0]} | {name: [3e9, 3e9] for name in plots.COLOURS})
    plots.score_histograms(constant, THRESHOLDS, tmp_path)
    bars = figures[0].axes[0].patches
    assert sum(bar.get_height() for bar in bars) == 2
    assert all(bar.get_width() > 0 for bar in bars)


def test_candidates_are_ordered_by_their_best(figures: list[Figure], tmp_path: Path) -> None:
    candidates = table()
    plots.candidates_plot(candidates, tmp_path)
    axes = figures[0].axes[0]
    best = [max(np.asarray(line.get_xdata())) for line in axes.lines]
    assert best == sorted(best)
    assert best[-1] == max(row["auroc"] for row in candidates)
    assert sum(len(np.asarray(line.get_xdata())) for line in axes.lines) == len(candidates)


def test_scores_of_others_are_drawn_in_the_same_plots_and_told_apart(
    figures: list[Figure], tmp_path: Path
) -> None:
    names = [*plots.COLOURS, "patchcore", "padim"]
    rng = np.random.default_rng(1)
    scores = made().assign(patchcore=rng.normal(size=90), padim=rng.normal(size=90))
    plots.roc_plot(scores, tmp_path, names)
    plots.false_negatives_plot(scores, tmp_path, names)
    for figure in figures:
        lines = {line.get_label(): line for line in figure.axes[0].lines}
        assert list(lines) == names
        assert [lines[name].get_linestyle() for name in names] == ["-"] * 3 + ["--"] * 2
        assert len({line.get_color() for line in lines.values()}) == len(names)


def test_histograms_of_others_are_drawn_without_a_threshold(figures: list[Figure], tmp_path: Path) -> None:
    scores = made().assign(patchcore=np.arange(90.0))
    plots.score_histograms(scores, THRESHOLDS, tmp_path, [*plots.COLOURS, "patchcore"])
    titles = [axes.get_title() for axes in figures[0].axes]
    assert titles == [*plots.COLOURS, "patchcore"]
    other = figures[0].axes[-1]
    assert sum(bar.get_height() for bar in other.patches) == 90
    assert not other.lines
