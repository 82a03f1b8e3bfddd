"""What each kind of evidence adds to familiarity: learned on the tuning split, judged on the test split.

Every part learns as in training and gets a weight of its own; the test split decides nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inputs import Request, rows_of_lines
from benchmarks.report import Report
from novad.evaluation.metrics import fnr_at_fpr, image_auroc
from novad.stages.calibrate_explainer import tuning_images
from novad.stages.choosing import choose_weight
from novad.stages.deviations import Deviations, learns
from novad.stages.line import Line
from novad.stages.options import Examples, Scored, learned
from novad.vision.calibration import fit_normal_scale
from novad.vision.evidence import evidence_candidates
from novad.vision.fusion import hybrid_scores
from novad.vision.residuals import FIGURES

__all__ = ["measure"]

Deviated = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """What is read of candidates (n, K) and memory residuals (n, R), and its unpenalised columns."""

    read: Callable[[Deviated, Deviated], Deviated]
    free: tuple[int, ...] = ()


def measure(request: Request) -> Report:
    """Set the parts side by side on every line that was trained with labelled anomalies enough to learn.

    Raises:
        MissingInput: there is no such line.
    """
    enough = "labelled anomalies enough to learn evidence"
    rows = rows_of_lines(request, lambda line: _rows(line) if learns(line) else [], enough)
    return Report(
        "What each part of the evidence adds, on the test split",
        {"learned on": "the tuning split", "explanation": "of the finest layer"},
        rows,
    )


def _rows(line: Line) -> list[dict[str, Any]]:
    deviations = Deviations.fit(line)
    told, normal = deviations.lessons(deviations.score(*tuning_images(line)))
    shown = line.rows("test")
    test = deviations.score(shown, line.images(shown))
    scale = fit_normal_scale(told.familiarity[told.calibration])
    known = scale(told.familiarity), scale(test.familiarity)
    rows = [_row(line, "familiarity alone", 0.0, known[1], test)]
    for name, part in _parts(deviations).items():
        novelty = _learned(line, part, told, normal, test)
        weight = choose_weight(told.rows, known[0], novelty[0], line.settings.tune_fusion).weight
        rows.append(_row(line, f"with {name}", weight, hybrid_scores(known[1], novelty[1], weight), test))
    return rows


def _parts(deviations: Deviations) -> dict[str, Part]:
    """Which deviations each part reads, from those of the candidates and those of the memory."""
    candidates, directions = deviations.candidates, deviations.familiarity.bank.vectors.shape[1]
    finest = deviations.grid.targets[0]
    own = [at for at, each in enumerate(candidates) if each.target == finest]
    explained = [own[at] for at in evidence_candidates([candidates[at] for at in own])]
    looks = [at for at, each in enumerate(candidates) if not each.explained]

    def memory(left: Deviated, which: slice) -> Deviated:
        return left.reshape(len(left), FIGURES, -1)[:, :, which].reshape(len(left), -1)

    def joint(columns: list[int]) -> Callable[[Deviated, Deviated], Deviated]:
        return lambda novelty, left: np.concatenate([novelty[:, columns], left], axis=1)

    parts = {
        "explanation": Part(lambda novelty, _: novelty[:, explained]),
        "residuals of features": Part(lambda _, left: memory(left, slice(directions))),
        "appearance, by the labels": Part(lambda _, left: memory(left, slice(directions, None))),
        "explanation, residuals and appearance by the labels": Part(joint(explained)),
    }
    if looks:
        parts["appearance, by no label"] = Part(lambda novelty, _: novelty[:, looks], (0,))
        parts["all but the explanation"] = Part(joint(looks), (0,))
        parts["all of these (novad)"] = Part(joint([*explained, *looks]), (len(explained),))
    return parts


def _learned(
    line: Line, part: Part, told: Scored, normal: Examples, test: Scored
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Calibrated novelty of calibration and tuning images, cross-fitted, and of test images."""
    evidence, scores = learned(
        told,
        part.read(normal.novelty, normal.residuals),
        part.read(told.novelty, told.residuals),
        line.settings.calibrate_explainer.evidence_strength,
        part.free,
        tuple(part.read(each.novelty, each.residuals) for each in told.mirrored.values()),
    )
    judged = evidence(torch.from_numpy(part.read(test.novelty, test.residuals))).double().numpy()
    scale = fit_normal_scale(scores[told.calibration])
    return scale(scores), scale(judged)


def _row(line: Line, name: str, weight: float, scores: NDArray[np.float64], test: Scored) -> dict[str, Any]:
    labels = test.anomalous.astype(int)
    return {
        "line": line.name,
        "hybrid": name,
        "weight": weight,
        "AUROC": image_auroc(scores, labels),
        "missed at 1 % FPR": fnr_at_fpr(scores, labels, 0.01),
        "missed at 5 % FPR": fnr_at_fpr(scores, labels, 0.05),
    }
