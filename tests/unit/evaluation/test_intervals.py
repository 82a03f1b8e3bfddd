"""Bootstrap intervals against figures recomputed resample by resample."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from novad.evaluation import intervals
from novad.evaluation.intervals import bootstrap_intervals, paired_comparison
from novad.evaluation.metrics import fnr_at_fpr


def made(seed: int, shift: float, normals: int = 40, anomalies: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Scores on a grid of tenths, so that many are tied."""
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(size=normals), rng.normal(shift, size=anomalies)])
    labels = np.repeat([0, 1], [normals, anomalies])
    order = rng.permutation(len(labels))
    return np.round(scores, 1)[order], labels[order]


def test_figures_of_a_resample_are_those_of_its_images_repeated() -> None:
    scores, labels = made(0, 1.0)
    for times in intervals._resampled(labels, 20, 0):
        found = intervals._figures(scores, labels, times, 0.8)
        for row, each in enumerate(times):
            values, truth = np.repeat(scores, each), np.repeat(labels, each)
            assert found["image_auroc"][row] == pytest.approx(roc_auc_score(truth, values))
            assert found["image_aupr"][row] == pytest.approx(average_precision_score(truth, values))
            assert found["fnr_at_fpr_01"][row] == pytest.approx(fnr_at_fpr(values, truth, 0.01))
            assert found["fnr_at_fpr_05"][row] == pytest.approx(fnr_at_fpr(values, truth, 0.05))
            assert found["f1"][row] == pytest.approx(f1_score(truth, values > 0.8))


def test_resamples_keep_the_size_of_both_classes_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "BLOCK", 16)
    labels = made(0, 1.0)[1]
    times = np.concatenate(list(intervals._resampled(labels, 50, 0)))
    assert times.shape == (50, len(labels))
    assert (times[:, labels == 0].sum(axis=1) == (labels == 0).sum()).all()
    assert (times[:, labels == 1].sum(axis=1) == (labels == 1).sum()).all()
    assert len(np.unique(times, axis=0)) == 50


def test_interval_of_the_auroc_is_about_as_wide_as_its_standard_error_says() -> None:
    scores, labels = made(1, 1.0, 150, 150)
    low, high = bootstrap_intervals({"it": scores}, labels, {"it": 1.0}, 1000, 0)["it"]["image_auroc"]
    auroc = roc_auc_score(labels, scores)
    # Hanley and McNeil 1982.
    first, second = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc) + 149 * (first - auroc**2) + 149 * (second - auroc**2)
    error = np.sqrt(variance) / 150
    assert low < auroc < high
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.15)


def test_equal_seeds_give_equal_intervals_and_other_seeds_others() -> None:
    scores, labels = made(2, 1.0)

    def found(seed: int) -> object:
        return bootstrap_intervals({"it": scores}, labels, {"it": 1.0}, 100, seed)

    assert found(3) == found(3)
    assert found(3) != found(4)


def test_a_score_is_no_better_than_itself() -> None:
    scores, labels = made(3, 1.0)
    told = paired_comparison(scores, scores, labels, 200, 0)
    assert told["auroc_difference"] == {"value": 0.0, "ci95": [0.0, 0.0], "p_value": 1.0}
    assert told["false_negative_reduction"]["at_fpr_05"] == {"value": 0.0, "ci95": [0.0, 0.0]}


def test_a_clearly_better_score_is_told_so() -> None:
    scores, labels = made(4, 0.5, 80, 80)
    better = scores + 2.5 * labels
    told = paired_comparison(better, scores, labels, 500, 0)
    assert told["auroc_difference"]["ci95"][0] > 0
    assert told["auroc_difference"]["p_value"] == pytest.approx(2 / 501, abs=1e-6)
    assert told["fnr_at_fpr_05_difference"]["ci95"][1] < 0
    reduction = told["false_negative_reduction"]["at_fpr_05"]
    misses = fnr_at_fpr(better, labels, 0.05), fnr_at_fpr(scores, labels, 0.05)
    assert reduction["value"] == pytest.approx(1 - misses[0] / misses[1], abs=1e-6)
    assert 0 < reduction["ci95"][0] <= reduction["value"] <= reduction["ci95"][1]
    worse = paired_comparison(scores, better, labels, 500, 0)
    assert worse["auroc_difference"]["value"] == -told["auroc_difference"]["value"]


def test_pairing_makes_the_interval_of_a_difference_narrow() -> None:
    scores, labels = made(5, 0.7, 80, 80)
    nearly = scores + np.random.default_rng(0).normal(scale=0.02, size=len(scores))
    low, high = paired_comparison(nearly, scores, labels, 300, 0)["auroc_difference"]["ci95"]
    alone = bootstrap_intervals({"it": scores}, labels, {"it": 1.0}, 300, 0)["it"]["image_auroc"]
    assert high - low < 0.2 * (alone[1] - alone[0])


def test_nothing_missed_leaves_nothing_to_reduce() -> None:
    labels = np.array([0] * 10 + [1] * 10)
    scores = labels.astype(float)
    told = paired_comparison(scores, scores, labels, 50, 0)
    assert told["false_negative_reduction"]["at_fpr_01"] == {"value": None, "ci95": None}


def test_without_resamples_there_are_values_but_no_intervals() -> None:
    scores, labels = made(6, 1.0)
    assert bootstrap_intervals({"it": scores}, labels, {"it": 1.0}, 0, 0) == {"it": {}}
    told = paired_comparison(scores, -scores, labels, 0, 0)
    assert told["auroc_difference"]["value"] is not None
    assert told["auroc_difference"]["ci95"] is None
    assert told["auroc_difference"]["p_value"] is None


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_gives_nothing(label: int) -> None:
    scores, labels = np.arange(5.0), np.full(5, label)
    assert bootstrap_intervals({"it": scores}, labels, {"it": 1.0}, 10, 0) == {"it": {}}
    assert paired_comparison(scores, scores, labels, 10, 0) == {}


def test_a_score_without_a_threshold_has_every_interval_but_that_of_f1() -> None:
    scores, labels = made(2, 1.0)
    with_one = bootstrap_intervals({"a": scores}, labels, {"a": 0.5}, 50, 0)["a"]
    without = bootstrap_intervals({"a": scores}, labels, {}, 50, 0)["a"]
    assert set(with_one) - set(without) == {"f1"}
    assert without == {name: with_one[name] for name in without}
