"""The benchmark as files: JSON for programs, Markdown and plots for people."""

from pathlib import Path
from typing import Any

import numpy as np

from novad.benchmarking.comparison import Comparison
from novad.evaluation.plots import false_negatives_plot, roc_plot, score_histograms
from novad.evaluation.summary import KINDS
from novad.images.report import told
from novad.stages.runner import write_json

__all__ = ["COLUMNS", "RESULTS", "cells", "data_gate", "markdown", "write_report"]

_PLOTS = ("score_histograms", "roc", "false_negatives")
RESULTS = ("bench.json", "bench.md", "scores.parquet", *(f"plots/{name}.png" for name in _PLOTS))

COLUMNS = (
    "method", "AUROC (95 %)", "AUPR", "missed at 1 % FPR", "missed at 5 % FPR (95 %)", "pixel AUROC", "AUPRO",
    "AUPIMO", "ms per image", "fit s", "peak MB",
)  # fmt: skip
_DIFFERENCES = {
    "auroc_difference": "AUROC",
    "fnr_at_fpr_01_difference": "missed at 1 % FPR",
    "fnr_at_fpr_05_difference": "missed at 5 % FPR",
}


def write_report(comparison: Comparison, folder: Path) -> dict[str, str]:
    """Write ``bench.json``, ``bench.md``, ``scores.parquet`` and the plots into ``folder``.

    Returns:
        Path of each file.
    """
    plots = folder / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    scores, document = comparison.scores, comparison.document
    write_json(folder / "bench.json", document)
    scores.to_parquet(folder / "scores.parquet", index=False)
    names = [
        *KINDS,
        *(row["method"] for row in document["methods"] if row["by"] != "novad" and _measured(row)),
    ]
    two_classes = len(np.unique(scores["label"])) == 2
    drawn = {name: plots / f"{name}.png" for name in (_PLOTS if two_classes else _PLOTS[:1])}
    score_histograms(scores, comparison.thresholds, drawn["score_histograms"], names)
    if two_classes:
        roc_plot(scores, drawn["roc"], names)
        false_negatives_plot(scores, drawn["false_negatives"], names)
    text = markdown(document, {name: path.relative_to(folder).as_posix() for name, path in drawn.items()})
    (folder / "bench.md").write_text(text, "utf-8")
    files = {name: folder / name for name in ("bench.json", "bench.md", "scores.parquet")}
    return {name: str(path) for name, path in {**files, **drawn}.items()}


def markdown(document: dict[str, Any], plots: dict[str, str]) -> str:
    """Conditions, table, differences and plots, as one page."""
    conditions, counts = document["conditions"], document["counts"]
    lines = [
        f"# {conditions['data']}: familiarity, novelty, hybrid and others",
        "",
        ", ".join(f"{name} {value}" for name, value in conditions.items() if value is not None),
        "",
        f"{counts['train']} bank, {counts['calibration']} calibration and {counts['tuning']} tuning images; "
        f"figures over the test split: {counts['test_normal']} normal, {counts['test_anomalous']} anomalous.",
        "anomalib's methods learnt from bank and calibration images together, and were judged on the same "
        "test split by the same figures.",
        "",
        *_table(COLUMNS, [cells(row, counts["test_anomalous"]) for row in document["methods"]]),
        "",
    ]
    lines += [f"- {row['method']}: {row['reason']}" for row in document["methods"] if not _measured(row)]
    lines += data_gate(document, "- ")
    differences = {"familiarity": document["hybrid_vs_familiarity"], **document["hybrid_vs"]}
    shown = [_difference_cells(name, each) for name, each in differences.items() if each]
    if shown:
        columns = ("hybrid minus", *_DIFFERENCES.values())
        lines += ["", "Paired bootstrap on the same images, 95 % intervals:", "", *_table(columns, shown)]
    lines += ["", *(f"![{name.replace('_', ' ')}]({path})" for name, path in plots.items()), ""]
    return "\n".join(lines)


def data_gate(document: dict[str, Any], before: str = "") -> list[str]:
    """What the data gate left out of the images, and what it and the thresholds warn of, for people."""
    return [f"{before}{line}" for part in ("left_out", "warnings") for line in told(document[part])]


def cells(row: dict[str, Any], anomalies: int) -> list[str]:
    """One row of the table, in the order of ``COLUMNS``.

    Args:
        row: of the document's ``methods``.
        anomalies: anomalous test images, to tell misses as a count too.
    """
    name = row["method"] if row["by"] == "novad" else f"{row['by']} {row['method']}"
    if not _measured(row):
        return [name, str(row["reason"]).split(":")[0], *["-"] * (len(COLUMNS) - 2)]
    cost, interval = row["cost"], row["ci95"]
    missed = row["fnr_at_fpr_05"]
    count = "" if missed is None else f", {round(missed * anomalies)} of {anomalies}"
    return [
        name,
        _share(row["image_auroc"]) + _between(interval.get("image_auroc")),
        _share(row["image_aupr"]),
        _share(row["fnr_at_fpr_01"]),
        _share(missed) + _between(interval.get("fnr_at_fpr_05")) + count,
        *(_share(row[figure]) for figure in ("pixel_auroc", "aupro", "aupimo")),
        f"{cost['ms_per_image']:.1f}",
        f"{cost['fit_seconds']:.1f}",
        f"{cost['peak_rss_mb']:.0f}",
    ]


def _measured(row: dict[str, Any]) -> bool:
    return row["reason"] is None


def _difference_cells(name: str, found: dict[str, Any]) -> list[str]:
    return [name, *(_signed(found[key]) for key in _DIFFERENCES)]


def _signed(entry: dict[str, Any]) -> str:
    if entry["value"] is None:
        return "-"
    low_high = "" if entry["ci95"] is None else f" ({entry['ci95'][0]:+.3f} to {entry['ci95'][1]:+.3f})"
    return f"{entry['value']:+.3f}{low_high}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _between(interval: list[float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"


def _table(columns: Any, rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(each)} |" for each in (columns, ["---"] * len(columns), *rows)]
