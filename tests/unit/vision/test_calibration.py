"""Scales, p-values and conformal thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novad.errors import CalibrationError
from novad.vision import Thresholds
from novad.vision.calibration import (
    coarse_promise,
    conformal_p_values,
    conformal_threshold,
    fit_normal_scale,
    promised_alpha,
)

SCORES = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("count", [20, 37])
def test_threshold_keeps_its_false_alarm_promise(alpha: float, count: int) -> None:
    rng = np.random.default_rng(0)
    alarms = [
        rng.exponential() > conformal_threshold(rng.exponential(size=count), alpha) for _ in range(6000)
    ]
    assert np.mean(alarms) <= alpha + 0.01
    assert np.mean(alarms) >= alpha - 1 / (count + 1) - 0.01


@given(SCORES, st.floats(0.01, 0.99))
def test_threshold_is_the_smallest_score_with_enough_below(scores: list[float], alpha: float) -> None:
    threshold = conformal_threshold(np.array(scores), alpha)
    needed = int(np.ceil((len(scores) + 1) * (1 - alpha) - 1e-9))
    if needed > len(scores):
        assert threshold == float("inf")
    else:
        assert np.sum(np.array(scores) <= threshold) >= needed
        assert np.sum(np.array(scores) < threshold) < max(needed, 1)


@given(SCORES, SCORES)
def test_p_values_count_normals_at_least_as_high(scores: list[float], normal: list[float]) -> None:
    found = conformal_p_values(np.array(scores), np.array(normal))
    brute = [(1 + sum(each >= score for each in normal)) / (len(normal) + 1) for score in scores]
    assert np.allclose(found, brute)


@given(SCORES, st.floats(0.02, 0.5))
def test_p_value_and_threshold_agree(scores: list[float], alpha: float) -> None:
    normal = np.array(scores)
    threshold = conformal_threshold(normal, alpha)
    if np.isfinite(threshold):
        above = np.array([threshold + 1.0])
        assert conformal_p_values(above, normal)[0] <= alpha + 1e-9


@settings(max_examples=50)
@given(st.lists(st.floats(-100, 100), min_size=5, max_size=50), st.floats(0.1, 10), st.floats(-50, 50))
def test_calibrated_scores_do_not_depend_on_units(scores: list[float], factor: float, shift: float) -> None:
    raw = np.array(scores)
    if np.quantile(raw, 0.9) - np.median(raw) < 1e-3:
        return
    first = fit_normal_scale(raw)(raw)
    second = fit_normal_scale(raw * factor + shift)(raw * factor + shift)
    assert np.allclose(first, second, atol=1e-4)


def test_a_gaussian_score_becomes_a_z_score() -> None:
    raw = np.random.default_rng(0).normal(7, 3, 40_000)
    scale = fit_normal_scale(raw)
    assert scale.median == pytest.approx(7, abs=0.1)
    assert scale.spread == pytest.approx(3, abs=0.1)


def test_constant_scores_do_not_divide_by_zero() -> None:
    assert np.isfinite(fit_normal_scale(np.full(10, 2.0))(np.array([2.0, 2.1]))).all()


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")], [float("inf")]])
def test_empty_and_broken_scores_are_refused(scores: list[float]) -> None:
    for use in (fit_normal_scale, lambda each: conformal_threshold(each, 0.1)):
        with pytest.raises(CalibrationError):
            use(np.array(scores))


def test_few_normals_promise_only_what_they_can() -> None:
    assert promised_alpha(9, 0.05) == pytest.approx(0.1)
    assert promised_alpha(99, 0.05) == 0.05
    assert np.isfinite(conformal_threshold(np.arange(9.0), promised_alpha(9, 0.05)))


@given(count=st.integers(1, 300), alpha=st.sampled_from([0.01, 0.02, 0.05, 0.07, 0.1, 0.29, 1 / 3]))
def test_a_coarser_promise_is_told_exactly_where_normals_are_too_few(count: int, alpha: float) -> None:
    told = coarse_promise(count, alpha)
    assert (told is None) == np.isfinite(conformal_threshold(np.arange(float(count)), alpha))
    if told is not None:
        assert told.startswith(f"{count} good parts set the threshold")
        enough = int(told.rpartition(": ")[2].split()[0])
        assert coarse_promise(enough, alpha) is None
        assert coarse_promise(enough - 1, alpha) is not None


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_a_score_that_is_no_number_passes_nothing(fail: float, review: float) -> None:
    assert Thresholds(fail, review, 0.05, {}).decide(float("nan")) == "FAIL"
