"""Learning from labelled anomalies: how much each deviation of an explanation counts for novelty."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from novad.vision.calibration import fit_normal_scale, normal_scales
from novad.vision.evidence import Evidence, squashed

__all__ = ["Lessons", "cross_fitted", "folds", "learn_evidence", "score_held_out"]

FOLDS = 5
DRAWS = 5
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Lessons:
    """Deviations of the images that evidence is learned from, and of those that set its scale.

    Attributes:
        normal: (b, K) of bank images that the normal statistics were not fitted on.
        tuning: (n, K) of the tuning split, normal and anomalous.
        anomalous: (n,) which of these are anomalies.
        order: (n,) names of the parts that they show; folds are drawn from their order, not from the order
            of rows, and pictures of one part are held out together.
        calibration: (c, K) of calibration normals: they set offset and spread and teach nothing, so that
            thresholds taken from them still hold.
        free: columns that are weighed without a penalty: those that tell anomalies without any label.
        mirrored: (n, K) of the same tuning images, once per flip; they teach with their image, or not at all.
    """

    normal: NDArray[np.float32]
    tuning: NDArray[np.float32]
    anomalous: Mask
    order: NDArray[np.str_]
    calibration: NDArray[np.float32]
    free: tuple[int, ...] = ()
    mirrored: tuple[NDArray[np.float32], ...] = ()


def learn_evidence(lessons: Lessons, strength: float, taught: Mask | None = None) -> Evidence:
    """Ridge-penalised logistic regression of the squashed deviations, classes balanced.

    Args:
        lessons: images by the K deviations.
        strength: inverse ridge penalty, for deviations divided by the square root of K.
        taught: (n,) tuning images to learn from; all when omitted.
    """
    taught = np.ones(len(lessons.anomalous), bool) if taught is None else taught
    views = (lessons.tuning, *lessons.mirrored)
    normal = np.concatenate([lessons.normal, *(each[taught & ~lessons.anomalous] for each in views)])
    centre, scale = (torch.from_numpy(each).float() for each in normal_scales(normal))
    share = np.full(normal.shape[1], np.sqrt(normal.shape[1]))
    share[list(lessons.free)] = 1.0

    def seen(deviations: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(squashed(torch.from_numpy(deviations), centre, scale).double().numpy() / share)

    images = np.concatenate([normal, *(each[taught & lessons.anomalous] for each in views)])
    labels = np.arange(len(images)) >= len(normal)
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000)
    weight: NDArray[np.float64] = model.fit(seen(images), labels).coef_[0] / share
    reading = fit_normal_scale((seen(lessons.calibration) * share) @ weight)
    return Evidence(centre, scale, torch.from_numpy(weight).float(), reading.median, reading.spread)


def cross_fitted(lessons: Lessons, strength: float) -> NDArray[np.float64]:
    """(n,) scores of the tuning images, each by evidence that was learned without it (Stone 1974).

    Means over several draws of the folds: one draw moves the AUROC by as much as targets differ.
    """
    scores = np.zeros(len(lessons.anomalous))
    for draw in range(DRAWS):
        for held_out in folds(lessons, draw):
            scores[held_out] += score_held_out(lessons, strength, held_out)
    return scores / DRAWS


def score_held_out(lessons: Lessons, strength: float, held_out: Mask) -> NDArray[np.float64]:
    """Scores of the tuning images ``held_out`` by evidence that was learned from the others."""
    evidence = learn_evidence(lessons, strength, ~held_out)
    return evidence(torch.from_numpy(lessons.tuning[held_out])).double().numpy()


def folds(lessons: Lessons, draw: int) -> Iterator[Mask]:
    """Held-out images of each fold: a fifth of the normals and a fifth of the anomalies."""
    random, turn = np.random.default_rng(draw), np.zeros(len(lessons.anomalous), int)
    for kind in (lessons.anomalous, ~lessons.anomalous):
        places = np.flatnonzero(kind)
        parts: NDArray[Any] = lessons.order[places]
        if len(set(parts)) < 2:  # of a single part nothing would be left to learn from
            parts = np.arange(len(places))
        names, part = np.unique(parts, return_inverse=True)
        turn[places] = (random.permutation(len(names)) % FOLDS)[part]
    for fold in range(FOLDS):
        yield turn == fold
