"""Image-level figures; undefined ones, for want of normals or anomalies, are None.

scikit-learn takes a second to load: those who ask for its figures pay, not every command that knows of them.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FALSE_POSITIVE_RATES",
    "allowed_alarms",
    "f1_at",
    "fnr_at_fpr",
    "image_aupr",
    "image_auroc",
    "threshold_at_fpr",
]

Scores = NDArray[np.floating]
Labels = NDArray[np.integer]

FALSE_POSITIVE_RATES = {"at_fpr_01": 0.01, "at_fpr_05": 0.05}


def image_auroc(scores: Scores, labels: Labels) -> float | None:
    """Area under the ROC curve of (n,) scores against (n,) labels, 1 for anomalous."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if _both(labels) else None


def image_aupr(scores: Scores, labels: Labels) -> float | None:
    """Average precision, anomalies being positive."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores)) if _both(labels) else None


def allowed_alarms(normals: int, false_positive_rate: float) -> int:
    """Most of ``normals`` images that may raise an alarm; one of them always lies at the threshold."""
    # 0.07 * 100 is 7.000000000000001 and 0.29 * 100 is 28.999999999999996: the rate is meant, not its float.
    return min(int(np.floor(false_positive_rate * normals + 1e-9)), normals - 1)


def threshold_at_fpr(normal_scores: Scores, false_positive_rate: float) -> float:
    """Smallest score of a normal image that at most ``false_positive_rate`` of the normals exceed.

    With fewer than 1 / ``false_positive_rate`` normals that is the highest of them: no alarm is allowed.

    Args:
        normal_scores: (n,), at least one.
        false_positive_rate: 0 to 1.
    """
    ordered = np.sort(normal_scores)[::-1]
    return float(ordered[allowed_alarms(len(ordered), false_positive_rate)])


def fnr_at_fpr(scores: Scores, labels: Labels, false_positive_rate: float) -> float | None:
    """Share of anomalies not above ``threshold_at_fpr`` of the normals: what is missed at that rate."""
    if not _both(labels):
        return None
    threshold = threshold_at_fpr(scores[labels == 0], false_positive_rate)
    return float(np.mean(scores[labels == 1] <= threshold))


def f1_at(scores: Scores, labels: Labels, threshold: float) -> float | None:
    """F1 of calling images above ``threshold`` anomalous."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, scores > threshold, zero_division=0.0)) if _both(labels) else None


def _both(labels: Labels) -> bool:
    return bool((labels == 0).any() and (labels == 1).any())
