"""Decisions at the thresholds in force, and how they are counted and drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_line import fake_scores
from novad.report.histogram import histogram
from novad.report.rates import decided, defect_types, outcome
from novad.vision import Thresholds


@given(st.floats(-3, 6), st.floats(0, 3))
def test_parts_are_decided_as_the_detector_decides(review: float, more: float) -> None:
    told = {"fail": review + more, "review": review}
    scores = fake_scores()
    detector = Thresholds(**told, alpha=0.05, map={})
    assert decided(scores, told)["decision"].tolist() == [detector.decide(each) for each in scores["hybrid"]]


def test_a_score_on_a_threshold_is_not_above_it() -> None:
    scores = fake_scores().head(3).assign(hybrid=[1.0, 1.5, 1.6])
    assert decided(scores, {"fail": 1.5, "review": 1.0})["decision"].tolist() == ["PASS", "REVIEW", "FAIL"]


def test_every_image_of_a_type_is_counted_once() -> None:
    scores = decided(fake_scores(), {"fail": 1.5, "review": 1.0})
    found = {each.name: each for each in defect_types(scores)}
    assert set(found) == {"dent", "scratch"}
    assert {each.images for each in found.values()} == {20}
    assert sum(rate.count for rate in found["dent"].rates.values()) == 20
    assert found["scratch"].rates["FAIL"].count == 20
    assert outcome("good", scores[scores["label"] == 7]).rates == {}


@pytest.mark.parametrize(
    "thresholds", [{"fail": 1.5}, {"review": -9.0, "fail": 99.0}, {"fail": float("inf")}]
)
def test_bars_hold_every_image_and_stay_inside(thresholds: dict[str, float]) -> None:
    drawn = histogram(fake_scores(), thresholds)
    counts = {
        label: sum(bar.count for bar in drawn.bars if bar.label == label) for label in ("good", "defective")
    }
    assert counts == {"good": 30, "defective": 40}
    assert all(0 <= bar.left < 1 and 0 < bar.height <= 1 for bar in drawn.bars)
    assert all(0 <= place <= 1 for place in drawn.lines.values())
    assert set(drawn.lines) == {name for name, value in thresholds.items() if np.isfinite(value)}


def test_equal_scores_make_one_bar() -> None:
    drawn = histogram(fake_scores().assign(hybrid=0.0), {})
    assert [bar.count for bar in drawn.bars] == [30, 40]
