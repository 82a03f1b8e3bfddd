"""What each kind of evidence adds to familiarity: learned on the tuning split, judged on the test split.

Every part learns as in training and gets a weight of its own; the test split decides nothing.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inputs import Request, trained_lines
from benchmarks.report import MissingInput, Report
from novad.evaluation.metrics import fnr_at_fpr, image_auroc
from novad.stages.calibrate_explainer import (
    bank_deviations,
    fit_candidates,
    image_tensors,
    learns,
    load_models,
    score_candidates,
    score_images,
)
from novad.stages.line import Line
from novad.stages.options import BankDeviations, Scored, learned
from novad.vision.calibration import fit_normal_scale
from novad.vision.evidence import evidence_candidates
from novad.vision.fusion import hybrid_scores, tune_weight
from novad.vision.residuals import FIGURES

__all__ = ["measure"]

Deviations = NDArray[np.float32]
Part = Callable[[Deviations, Deviations], Deviations]


def measure(request: Request) -> Report:
    """Set the parts side by side on every line that was trained with labelled anomalies enough to learn.

    Raises:
        MissingInput: there is no such line.
    """
    rows = [row for line in trained_lines(request) if learns(line) for row in _rows(line)]
    if not rows:
        raise MissingInput(f"no line in {request.artifacts} has labelled anomalies enough to learn evidence")
    return Report(
        "What each part of the evidence adds, on the test split",
        {"learned on": "the tuning split", "explanation": "all layers together"},
        rows,
    )


def _rows(line: Line) -> list[dict[str, Any]]:
    familiarity, explainer = load_models(line)
    grid, fits = fit_candidates(line, explainer)
    told = score_candidates(line, familiarity, explainer, grid, fits)
    normal = bank_deviations(line, familiarity, explainer, grid, fits)
    shown = line.rows("test")
    test = score_images(shown, image_tensors(line, line.images(shown)), familiarity, explainer, grid, fits)
    scale = fit_normal_scale(told.familiarity[told.calibration])
    known = scale(told.familiarity), scale(test.familiarity)
    rows = [_row(line, "familiarity alone", 0.0, known[1], test)]
    for name, part in _parts(told, familiarity.bank.vectors.shape[1]).items():
        novelty = _learned(line, part, told, normal, test)
        bad = told.anomalous
        weight = tune_weight(
            (known[0][~bad], novelty[0][~bad]),
            (known[0][bad], novelty[0][bad]),
            line.settings.tune_fusion.max_false_positive_rate,
            line.settings.tune_fusion.equal_weight_prior,
        ).weight
        rows.append(_row(line, f"with {name}", weight, hybrid_scores(known[1], novelty[1], weight), test))
    return rows


def _parts(told: Scored, directions: int) -> dict[str, Part]:
    """Which deviations each part reads, from those of the explanation and those of the memory."""
    joined = told.candidates[-1].target
    own = [at for at, each in enumerate(told.candidates) if each.target == joined]
    columns = [own[at] for at in evidence_candidates([told.candidates[at] for at in own])]

    def memory(residuals: Deviations, which: slice) -> Deviations:
        return residuals.reshape(len(residuals), FIGURES, -1)[:, :, which].reshape(len(residuals), -1)

    return {
        "explanation": lambda novelty, _: novelty[:, columns],
        "residuals of features": lambda _, left: memory(left, slice(directions)),
        "appearance": lambda _, left: memory(left, slice(directions, None)),
        "residuals and appearance": lambda _, left: left,
        "explanation, residuals and appearance (novad)": lambda novelty, left: np.concatenate(
            [novelty[:, columns], left], axis=1
        ),
    }


def _learned(
    line: Line, part: Part, told: Scored, normal: BankDeviations, test: Scored
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Calibrated novelty of calibration and tuning images, cross-fitted, and of test images."""
    evidence, scores = learned(
        told,
        part(normal.novelty, normal.residuals),
        part(told.novelty, told.residuals),
        line.settings.calibrate_explainer.evidence_strength,
    )
    judged = evidence(torch.from_numpy(part(test.novelty, test.residuals))).double().numpy()
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
