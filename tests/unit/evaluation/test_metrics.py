"""Image-level figures against their definitions, written out."""

import numpy as np
import pytest

from novad.evaluation.metrics import f1_at, fnr_at_fpr, image_aupr, image_auroc, threshold_at_fpr


def labelled(normals: list[float], anomalies: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(normals + anomalies), np.array([0] * len(normals) + [1] * len(anomalies))


def test_auroc_is_the_share_of_pairs_in_right_order_with_ties_by_half() -> None:
    scores, labels = labelled([1.0, 2.0, 2.0, 5.0], [2.0, 3.0, 6.0])
    pairs = [(n < a) + (n == a) / 2 for n in scores[labels == 0] for a in scores[labels == 1]]
    assert image_auroc(scores, labels) == pytest.approx(np.mean(pairs))


def test_aupr_sums_precision_over_steps_of_recall() -> None:
    scores, labels = labelled([1.0, 4.0], [3.0, 5.0])
    # Descending: anomaly (precision 1), normal, anomaly (precision 2/3), normal; recall rises by 1/2 twice.
    assert image_aupr(scores, labels) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_threshold_is_the_smallest_normal_score_that_keeps_the_rate() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 19, 20, 21, 99, 100, 101, 200):
        normals = np.round(rng.normal(size=count), 1)  # one decimal: many ties
        for rate in (0.0, 0.01, 0.05, 0.07, 0.29, 0.5, 1.0):
            kept = [value for value in normals if (normals > value).sum() <= rate * count + 1e-9]
            assert threshold_at_fpr(normals, rate) == min(kept), (count, rate)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.29])
def test_a_rate_that_is_a_whole_number_of_images_is_used_in_full(rate: float) -> None:
    normals = np.arange(100.0)
    assert (normals > threshold_at_fpr(normals, rate)).sum() == round(100 * rate)


def test_with_few_normals_no_alarm_is_allowed() -> None:
    scores, labels = labelled([0.0, 1.0, 2.0, 9.0], [5.0, 9.0, 10.0])
    assert fnr_at_fpr(scores, labels, 0.05) == pytest.approx(2 / 3)


def test_an_anomaly_at_the_threshold_is_missed() -> None:
    scores, labels = labelled([0.0] * 20, [0.0, 1.0])
    assert fnr_at_fpr(scores, labels, 0.05) == 0.5


def test_all_normals_tied_at_the_top_allow_nothing_below() -> None:
    scores, labels = labelled([0.0] * 10 + [7.0] * 10, [3.0, 8.0])
    assert fnr_at_fpr(scores, labels, 0.05) == 0.5


def test_f1_counts_only_what_lies_above_the_threshold() -> None:
    scores, labels = labelled([0.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    # Above 2: one normal, two anomalies: precision 2/3, recall 2/3.
    assert f1_at(scores, labels, 2.0) == pytest.approx(2 / 3)


def test_an_infinite_threshold_finds_nothing() -> None:
    scores, labels = labelled([0.0], [1.0])
    assert f1_at(scores, labels, float("inf")) == 0.0


@pytest.mark.parametrize("labels", [[0, 0], [1, 1]])
def test_figures_are_undefined_without_both_classes(labels: list[int]) -> None:
    scores, each = np.array([1.0, 2.0]), np.array(labels)
    assert image_auroc(scores, each) is None
    assert image_aupr(scores, each) is None
    assert fnr_at_fpr(scores, each, 0.05) is None
    assert f1_at(scores, each, 1.0) is None
