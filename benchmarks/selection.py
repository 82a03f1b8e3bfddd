"""How to choose a novelty statistic and its weight: policies compared on halves of the tuning split.

Every calibration and tuning image of a trained line is scored by every candidate. Then, many times over, a
random 60 % of them play tuning split: a policy chooses there, and its hybrid is judged on the other 40 %.
The test split is not opened.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs import Request
from benchmarks.report import MissingInput, Report
from novad.config import Workspace
from novad.evaluation.metrics import fnr_at_fpr, image_auroc
from novad.stages.calibrate_explainer import fit_candidates, load_models, score_candidates
from novad.stages.line import Line
from novad.vision.calibration import fit_normal_scale
from novad.vision.fusion import hybrid_scores, tune_weight
from novad.vision.novelty import Candidate
from novad.vision.selection import choose

__all__ = ["measure"]

ROUNDS = 20
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Scores:
    """Calibrated scores of n images by familiarity and K candidates, and the labels."""

    familiarity: Floats
    novelty: Floats
    anomalous: NDArray[np.bool_]
    candidates: list[Candidate]
    reference: Candidate

    def of(self, rows: NDArray[np.bool_]) -> "_Scores":
        return _Scores(
            self.familiarity[rows], self.novelty[rows], self.anomalous[rows], self.candidates, self.reference
        )


def measure(request: Request) -> Report:
    """Compare the policies on every line that was trained with labelled tuning anomalies.

    Raises:
        MissingInput: there is none.
    """
    lines = sorted(
        path.parents[1].name for path in request.artifacts.glob("*/calibrate_explainer/scores.parquet")
    )
    if not lines:
        raise MissingInput(
            f"no trained line in {request.artifacts}; train one, or name a folder by --artifacts"
        )
    workspace = Workspace(request.artifacts.parent)
    rows = [row for line in lines for row in _rows(line, _scored(Line.open(workspace, line)))]
    return Report(
        "Choosing novelty: hybrid on held-out parts of calibration and tuning images",
        {"rounds": ROUNDS, "chosen on": "60 %", "judged on": "40 %"},
        rows,
    )


def _scored(line: Line) -> _Scores:
    familiarity, explainer = load_models(line)
    grid, fits = fit_candidates(line, explainer)
    scored = score_candidates(line, familiarity, explainer, grid, fits)
    calibration = (scored.rows["split"] == "calibration").to_numpy()
    novelty = scored.novelty.astype(np.float64)
    return _Scores(
        fit_normal_scale(scored.familiarity[calibration])(scored.familiarity),
        np.stack([fit_normal_scale(each[calibration])(each) for each in novelty.T], axis=1),
        (scored.rows["label"] == 1).to_numpy(),
        [candidate for target in grid.targets for candidate in grid.candidates(target)],
        grid.reference(explainer),
    )


def _rows(line: str, scores: _Scores) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    halves = [rng.random(len(scores.anomalous)) < 0.6 for _ in range(ROUNDS)]
    rows = []
    for name, policy in POLICIES.items():
        judged = [_judge(scores.of(~half), *policy(scores.of(half))) for half in halves]
        auroc, missed, alone = np.mean(judged, axis=0)
        rows.append(
            {
                "line": line,
                "policy": name,
                "AUROC": float(auroc),
                "missed at 5 % FPR": float(missed),
                "novelty alone, AUROC": float(alone),
            }
        )
    return rows


def _judge(held_out: _Scores, candidate: int, weight: float) -> tuple[float, float, float]:
    labels = held_out.anomalous.astype(int)
    novelty = held_out.novelty[:, candidate]
    hybrid = hybrid_scores(held_out.familiarity, novelty, weight)
    figures = image_auroc(hybrid, labels), fnr_at_fpr(hybrid, labels, 0.05), image_auroc(novelty, labels)
    return tuple(np.nan if figure is None else figure for figure in figures)  # type: ignore[return-value]


def _weight(scores: _Scores, candidate: int) -> float:
    bad, novelty = scores.anomalous, scores.novelty[:, candidate]
    normal = scores.familiarity[~bad], novelty[~bad]
    return tune_weight(normal, (scores.familiarity[bad], novelty[bad]), 0.05, 1.0).weight


def _aurocs(scores: _Scores, weight: float) -> Floats:
    labels = scores.anomalous.astype(int)
    fused = hybrid_scores(scores.familiarity[:, None], scores.novelty, weight)
    return np.asarray([image_auroc(each, labels) for each in fused.T], np.float64)


def _reference(scores: _Scores) -> int:
    return scores.candidates.index(scores.reference)


def _surely_better(scores: _Scores) -> int:
    return scores.candidates.index(
        choose(scores.candidates, scores.reference, scores.novelty, scores.anomalous)
    )


def _tuned(choice: Callable[[_Scores], int]) -> Callable[[_Scores], tuple[int, float]]:
    return lambda scores: (choice(scores), _weight(scores, choice(scores)))


POLICIES: dict[str, Callable[[_Scores], tuple[int, float]]] = {
    "familiarity alone": lambda scores: (_reference(scores), 0.0),
    "reference, equal weights": lambda scores: (_reference(scores), 0.5),
    "reference, tuned weight": _tuned(_reference),
    "surely better than the reference, tuned weight (novad)": _tuned(_surely_better),
    "best alone, tuned weight": _tuned(lambda scores: int(_aurocs(scores, 1.0).argmax())),
    "best when fused, tuned weight": _tuned(lambda scores: int(_aurocs(scores, 0.5).argmax())),
}
