"""The fusion weight and what it is judged by."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from novad.errors import CalibrationError
from novad.vision.fusion import WEIGHTS, hybrid_scores, miss_rate, tune_weight


def samples(seed: int, familiar: float, novel: float) -> tuple[tuple, tuple]:
    rng = np.random.default_rng(seed)
    normal = (rng.normal(size=80), rng.normal(size=80))
    anomalous = (rng.normal(familiar, 1, 60), rng.normal(novel, 1, 60))
    return normal, anomalous


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(-1, 3), st.floats(-1, 3))
def test_without_prior_the_hybrid_is_never_worse_than_its_better_half(
    seed: int, familiar: float, novel: float
) -> None:
    normal, anomalous = samples(seed, familiar, novel)
    choice = tune_weight(normal, anomalous, 0.05, 0.0)
    table = {row["weight"]: row["auroc"] for row in choice.table}
    assert (
        table[choice.weight] >= max(table[0.0], table[1.0]) - 1e-9
    )  # sums of equal pairs differ in a last bit


def test_the_table_holds_every_weight_with_its_true_figures() -> None:
    normal, anomalous = samples(3, 1.0, 0.5)
    choice = tune_weight(normal, anomalous, 0.05, 1.0)
    assert [row["weight"] for row in choice.table] == list(WEIGHTS)
    labels = np.r_[np.zeros(80), np.ones(60)]
    for row in choice.table:
        good, bad = (hybrid_scores(*each, row["weight"]) for each in (normal, anomalous))
        assert row["auroc"] == pytest.approx(roc_auc_score(labels, np.r_[good, bad]))
        assert row["miss_rate"] == miss_rate(good, bad, 0.05)


def test_useless_novelty_gets_no_weight_and_useless_familiarity_all() -> None:
    assert tune_weight(*samples(1, 3.0, 0.0), 0.05, 0.0).weight < 0.4
    assert tune_weight(*samples(1, 0.0, 3.0), 0.05, 0.0).weight > 0.6


def test_thin_evidence_stays_near_equal_weights() -> None:
    normal, anomalous = samples(2, 1.2, 1.0)
    few = tuple(each[:2] for each in anomalous)
    assert abs(tune_weight(normal, few, 0.05, 5.0).weight - 0.5) <= 0.1


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=50),
    st.lists(st.floats(-5, 5), min_size=1, max_size=20),
    st.floats(0, 0.9),
)
def test_miss_rate_equals_trying_every_threshold(
    normal: list[float], anomalous: list[float], rate: float
) -> None:
    good, bad = np.array(normal), np.array(anomalous)
    allowed = [each for each in good if np.mean(good > each) <= rate + 1e-12]
    assert miss_rate(good, bad, rate) == np.mean(bad <= min(allowed))


def test_nothing_to_tune_on_is_refused() -> None:
    empty = (np.array([]), np.array([]))
    with pytest.raises(CalibrationError):
        tune_weight(empty, samples(0, 1, 1)[1], 0.05, 1.0)
