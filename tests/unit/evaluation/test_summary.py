"""The dictionary that becomes metrics.json."""

import json

import numpy as np
import pandas as pd
import pytest

from novad.errors import CalibrationError
from novad.evaluation.summary import KINDS, image_figures, summarise

THRESHOLDS = {"familiarity": 1.0, "novelty": 2.0, "hybrid": 1.5}
PIXELS = {
    kind: {"pixel_auroc": value, "aupro": 0.5, "aupimo": None}
    for kind, value in zip(KINDS, (0.7, 0.8, 0.9), strict=True)
}


def made(normals: int = 30, anomalies: int = 20) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [normals, anomalies])
    types = np.where(labels == 0, "good", np.where(np.arange(len(labels)) % 2, "scratch", "dent"))
    scores = {kind: rng.normal(size=len(labels)) + (1 + place) * labels for place, kind in enumerate(KINDS)}
    paths = [f"test/{number:03}.png" for number in range(len(labels))]
    return pd.DataFrame({"path": paths, "label": labels, "defect_type": types} | scores)


def told(scores: pd.DataFrame, bootstrap: int = 50) -> dict:
    return summarise(scores, THRESHOLDS, PIXELS, bootstrap, 0)


def test_every_figure_of_the_contract_is_there_for_every_score() -> None:
    summary = told(made())
    assert set(summary["scores"]) == set(KINDS)
    for figures in summary["scores"].values():
        image = {"image_auroc", "image_aupr", "fnr_at_fpr_01", "fnr_at_fpr_05", "f1"}
        assert set(figures) == image | {"pixel_auroc", "aupro", "aupimo", "ci95"}
        assert set(figures["ci95"]) == image
        for name in image:
            low, high = figures["ci95"][name]
            assert low <= high
    assert {"at_fpr_01", "at_fpr_05"} <= set(summary["false_negative_reduction"])


def test_reduction_is_one_minus_the_ratio_of_misses() -> None:
    summary = told(made())
    for name in ("at_fpr_01", "at_fpr_05"):
        hybrid, familiarity = (summary["scores"][kind][f"fnr_{name}"] for kind in ("hybrid", "familiarity"))
        assert hybrid < familiarity
        expected = 1 - hybrid / familiarity
        assert summary["false_negative_reduction"][name] == pytest.approx(expected, abs=1e-5)
        low, high = summary["false_negative_reduction"]["ci95"][name]
        assert low <= expected <= high


def test_the_comparison_says_by_how_much_hybrid_beats_familiarity() -> None:
    summary = told(made())
    hybrid, familiarity = (summary["scores"][kind]["image_auroc"] for kind in ("hybrid", "familiarity"))
    difference = summary["hybrid_vs_familiarity"]["auroc_difference"]
    assert difference["value"] == pytest.approx(hybrid - familiarity, abs=1e-5)
    assert 0 < difference["p_value"] <= 1


def test_recall_counts_what_lies_above_the_threshold_of_each_score() -> None:
    scores = made()
    summary = told(scores)["by_defect_type"]
    assert set(summary) == {"scratch", "dent"}
    for defect_type, found in summary.items():
        rows = scores[scores["defect_type"] == defect_type]
        assert found["count"] == len(rows) == 10
        for kind in KINDS:
            assert found["recall"][kind] == pytest.approx((rows[kind] > THRESHOLDS[kind]).mean())


def test_equal_scores_give_equal_json_whatever_the_order_of_images() -> None:
    first = json.dumps(told(made()), allow_nan=False)
    assert json.dumps(told(made()), allow_nan=False) == first
    shuffled = told(made().sample(frac=1, random_state=1))
    for kind in KINDS:
        for name in ("image_auroc", "image_aupr", "fnr_at_fpr_01", "fnr_at_fpr_05", "f1"):
            assert shuffled["scores"][kind][name] == json.loads(first)["scores"][kind][name]


def test_pixel_figures_stay_with_their_score() -> None:
    for kind, figures in told(made())["scores"].items():
        assert {name: figures[name] for name in PIXELS[kind]} == PIXELS[kind]


def test_another_seed_gives_other_intervals_everywhere() -> None:
    one, other = (summarise(made(), THRESHOLDS, PIXELS, 50, seed) for seed in (0, 1))
    for part in ("scores", "hybrid_vs_familiarity", "false_negative_reduction"):
        assert one[part] != other[part], part
    assert one["scores"]["hybrid"]["image_auroc"] == other["scores"]["hybrid"]["image_auroc"]


def test_figures_are_rounded_to_six_places() -> None:
    def numbers(part: object) -> list[float]:
        inside = part.values() if isinstance(part, dict) else part if isinstance(part, list) else []
        return [part] if isinstance(part, float) else [each for below in inside for each in numbers(below)]

    summary = told(made(37, 29))
    assert len(numbers(summary)) > 50
    assert [each for each in numbers(summary) if round(each, 6) != each] == []


@pytest.mark.parametrize(("normals", "anomalies"), [(10, 0), (0, 10), (1, 1)])
def test_what_is_undefined_is_null_and_never_nan(normals: int, anomalies: int) -> None:
    summary = told(made(normals, anomalies))
    text = json.dumps(summary, allow_nan=False)
    auroc = json.loads(text)["scores"]["hybrid"]["image_auroc"]
    assert (auroc is None) == (not normals or not anomalies)


def test_an_infinite_threshold_recalls_nothing() -> None:
    summary = summarise(made(), dict.fromkeys(KINDS, float("inf")), PIXELS, 10, 0)
    assert summary["scores"]["hybrid"]["f1"] == 0.0
    assert summary["by_defect_type"]["dent"]["recall"]["hybrid"] == 0.0
    json.dumps(summary, allow_nan=False)


def test_a_score_that_is_not_finite_is_refused_by_image() -> None:
    scores = made()
    scores.loc[7, "novelty"] = np.nan
    with pytest.raises(CalibrationError, match=r"test/007\.png: its novelty"):
        told(scores)


def test_figures_of_one_score_are_those_of_the_summary_and_f1_needs_a_threshold() -> None:
    scores = made()
    labels, values = scores["label"].to_numpy(), scores["hybrid"].to_numpy()
    found = image_figures(values, labels, THRESHOLDS["hybrid"])
    assert found.items() <= told(scores)["scores"]["hybrid"].items()
    assert image_figures(values, labels) == found | {"f1": None}
