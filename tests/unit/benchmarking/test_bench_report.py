"""The benchmark's page and files: every method has a row, measured or with its reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from novad.benchmarking.comparison import Comparison
from novad.benchmarking.report import COLUMNS, cells, data_gate, markdown, write_report
from novad.evaluation.summary import KINDS

COST = {"fit_seconds": 12.34, "ms_per_image": 5.67, "peak_rss_mb": 890.1}


def measured(method: str, by: str, missed: float | None = 0.25) -> dict[str, Any]:
    image = {
        "image_auroc": 0.875,
        "image_aupr": 0.75,
        "fnr_at_fpr_01": 0.5,
        "fnr_at_fpr_05": missed,
        "f1": None,
    }
    pixels = {"pixel_auroc": 0.9, "aupro": 0.8, "aupimo": None}
    ci95 = {"image_auroc": [0.8, 0.9], "fnr_at_fpr_05": [0.2, 0.3]}
    return {"method": method, "by": by, "reason": None, **image, **pixels, "ci95": ci95, "cost": COST}


def difference(value: float) -> dict[str, Any]:
    entry = {"value": value, "ci95": [value - 0.1, value + 0.1], "p_value": 0.5}
    return dict.fromkeys(("auroc_difference", "fnr_at_fpr_01_difference", "fnr_at_fpr_05_difference"), entry)


@pytest.fixture
def comparison() -> Comparison:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [20, 12])
    scores = pd.DataFrame({"path": "x.png", "label": labels, "defect_type": "dent"})
    scores = scores.assign(**{name: rng.normal(size=32) + labels for name in (*KINDS, "patchcore")})
    reason = "failed: MemoryError: too | much"
    bad = {"check": "readable_image", "severity": "left out", "images": ["a.png"], "message": "is empty"}
    alike = [f"{number}.png" for number in range(12)]
    near = {"check": "near", "severity": "warning", "images": alike, "message": "figures are flattered"}
    document = {
        "left_out": [bad],
        "warnings": [near] * 25,
        "conditions": {"data": "parts", "anomalib": "2.7.0", "explainer": None},
        "counts": {"train": 30, "calibration": 9, "tuning": 11, "test_normal": 20, "test_anomalous": 12},
        "methods": [
            *(measured(kind, "novad") for kind in KINDS),
            measured("patchcore", "anomalib"),
            {"method": "padim", "by": "anomalib", "reason": reason},
        ],
        "hybrid_vs_familiarity": difference(-0.03125),
        "hybrid_vs": {"patchcore": difference(0.0625)},
    }
    return Comparison(document, scores, {"familiarity": 1.0, "novelty": float("inf"), "hybrid": 1.0})


def test_every_method_has_a_row_of_all_columns(comparison: Comparison) -> None:
    rows = [cells(row, 12) for row in comparison.document["methods"]]
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert [row[0] for row in rows] == [*KINDS, "anomalib patchcore", "anomalib padim"]
    assert rows[3][1] == "0.875 (0.800 to 0.900)"
    assert rows[3][4] == "0.250 (0.200 to 0.300), 3 of 12"
    assert rows[3][7:] == ["-", "5.7", "12.3", "890"]
    assert rows[4][1:] == ["failed", *["-"] * (len(COLUMNS) - 2)]


def test_a_warning_that_concerns_no_image_names_none() -> None:
    few = {"check": "thresholds", "severity": "warning", "images": [], "message": "9 good parts set them"}
    assert data_gate({"left_out": [], "warnings": [few]}) == ["warning thresholds: 9 good parts set them"]


def test_figures_that_are_not_defined_are_dashes() -> None:
    row = measured("hybrid", "novad", None) | {"image_auroc": None, "image_aupr": None, "ci95": {}}
    assert cells(row, 0)[1:5] == ["-", "-", "0.500", "-"]


def test_the_page_has_reasons_differences_and_plots(comparison: Comparison) -> None:
    page = markdown(comparison.document, {"roc": "plots/roc.png"})
    lines = page.splitlines()
    assert "- padim: failed: MemoryError: too | much" in lines
    assert sum(line.startswith("| anomalib ") for line in lines) == 2
    assert "| familiarity | -0.031 (-0.131 to +0.069) |" in page
    assert "| patchcore | +0.062 (-0.038 to +0.163) |" in page
    assert "![roc](plots/roc.png)" in lines
    assert "explainer" not in page


def test_the_page_tells_what_was_left_out_and_some_of_the_warnings(comparison: Comparison) -> None:
    lines = markdown(comparison.document, {}).splitlines()
    assert "- left out readable_image: a.png: is empty" in lines
    near = [line for line in lines if line.startswith("- warning near: 0.png, ")]
    assert len(near) == 20
    assert near[0].endswith("9.png and 2 more: figures are flattered")
    assert "- and 5 more findings" in lines


def test_the_files_are_whole_and_plots_are_those_the_page_shows(
    comparison: Comparison, tmp_path: Path
) -> None:
    files = write_report(comparison, tmp_path)
    assert all(Path(path).is_file() for path in files.values())
    assert json.loads((tmp_path / "bench.json").read_text()) == comparison.document
    assert list(pd.read_parquet(tmp_path / "scores.parquet")) == list(comparison.scores)
    shown = [line.split("(")[1].rstrip(")") for line in (tmp_path / "bench.md").read_text().splitlines()
             if line.startswith("![")]  # fmt: skip
    assert sorted(shown) == ["plots/false_negatives.png", "plots/roc.png", "plots/score_histograms.png"]
    assert all((tmp_path / path).is_file() for path in shown)


def test_without_anomalies_there_is_a_page_and_no_curve(comparison: Comparison, tmp_path: Path) -> None:
    normals = comparison.scores[comparison.scores["label"] == 0]
    files = write_report(Comparison(comparison.document, normals, comparison.thresholds), tmp_path)
    assert set(files) == {"bench.json", "bench.md", "scores.parquet", "score_histograms"}
