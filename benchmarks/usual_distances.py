"""What familiarity gains from knowing which distances are usual at a place: on the tuning split alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inputs import Request, trained_lines
from benchmarks.report import MissingInput, Report
from novad.evaluation.metrics import fnr_at_fpr, image_auroc
from novad.stages.deviations import image_tensors, load_models
from novad.stages.line import Line
from novad.vision.models import FamiliarityModel

__all__ = ["measure"]


def measure(request: Request) -> Report:
    """Compare plain distances with those freed of what is usual, on every line that was trained.

    Raises:
        MissingInput: there is no line with labelled anomalies.
    """
    rows = [row for line in trained_lines(request) if _labelled(line) for row in _rows(line)]
    if not rows:
        raise MissingInput(f"no line with labelled anomalies in {request.artifacts}")
    return Report(
        "Familiarity on tuning anomalies against calibration and tuning normals",
        {"the test split is": "not opened"},
        rows,
    )


def _labelled(line: Line) -> bool:
    return bool((line.rows("tuning")["label"] == 1).any())


def _rows(line: Line) -> list[dict[str, Any]]:
    # The line's own bank alone: companions are averaged with it on the scale that usual distances give.
    familiarity = replace(load_models(line)[0], companions=())
    usual, labels = familiarity.bank.usual, line.rows("calibration", "tuning")["label"].to_numpy()
    rows = []
    for name, moments in (("plain", None), ("less what is usual at its place", usual)):
        familiarity.bank.usual = moments
        scores = _scores(line, familiarity)
        rows.append(
            {
                "line": line.name,
                "layers": "+".join(familiarity.backbone.layers),
                "distances": name,
                "AUROC": image_auroc(scores, labels),
                "missed at 5 % FPR": fnr_at_fpr(scores, labels, 0.05),
            }
        )
    return rows


def _scores(line: Line, familiarity: FamiliarityModel) -> NDArray[np.float64]:
    images = line.images(line.rows("calibration", "tuning"))
    with torch.inference_mode():
        batches = [familiarity.score(familiarity.backbone(each)) for each in image_tensors(line, images)]
    return torch.cat([each.scores for each in batches]).double().numpy()
