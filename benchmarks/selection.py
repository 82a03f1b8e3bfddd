"""How to ask for novelty and how much to trust it: policies compared on parts of the tuning split.

Every calibration and tuning image of a trained line is scored by every candidate. Then, many times over, a
random 60 % of them play tuning split: a policy chooses or learns there, and its hybrid is judged on the
other 40 %. The test split is not opened.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.inputs import Request, trained_lines
from benchmarks.report import Report
from novad.config import LineSettings
from novad.evaluation.metrics import fnr_at_fpr, image_auroc
from novad.stages.calibrate_explainer import tuning_images
from novad.stages.deviations import Deviations, learns
from novad.stages.line import Line
from novad.stages.options import (
    SURE,
    Examples,
    Option,
    Scored,
    best_option,
    offered_options,
    single_option,
    surest_option,
)
from novad.vision.calibration import fit_normal_scale
from novad.vision.fusion import hybrid_scores
from novad.vision.novelty import Candidate

__all__ = ["measure", "novelty_of", "part_of"]

ROUNDS = 20
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Case:
    """A trained line, or a part of its calibration and tuning images.

    Attributes:
        settings: of the line.
        scored: images by familiarity and every candidate.
        reference: candidate that the search starts from.
        normal: bank images, where there are anomalies enough to learn from.
    """

    settings: LineSettings
    scored: Scored
    reference: Candidate
    normal: Examples | None

    def of(self, rows: NDArray[np.bool_]) -> "_Case":
        return replace(self, scored=part_of(self.scored, rows))

    @cached_property
    def plain(self) -> list[Option]:
        """What a line with few anomalies may take."""
        return offered_options(self.settings, self.scored, self.reference, None)

    @cached_property
    def learned(self) -> list[Option]:
        """What a line that learns may take: singles, then evidence of each layer, last that of the memory."""
        return offered_options(self.settings, self.scored, self.reference, self.normal)


def part_of(scored: Scored, rows: NDArray[np.bool_]) -> Scored:
    """Some of the images."""
    tuning = rows[~scored.calibration]
    return Scored(
        scored.rows[rows],
        scored.candidates,
        scored.familiarity[rows],
        scored.novelty[rows],
        scored.residuals[rows],
        {
            name: Examples(each.novelty[tuning], each.residuals[tuning])
            for name, each in scored.mirrored.items()
        },
    )


def measure(request: Request) -> Report:
    """Compare the policies on every line that was trained.

    Raises:
        MissingInput: there is none.
    """
    lines = trained_lines(request)
    rows = [row for line in lines for row in _rows(line.name, _case(line))]
    return Report(
        "Choosing novelty: hybrid on held-out parts of calibration and tuning images",
        {"rounds": ROUNDS, "chosen on": "60 %", "judged on": "40 %"},
        rows,
    )


def _case(line: Line) -> _Case:
    deviations = Deviations.fit(line)
    scored, normal = deviations.score(*tuning_images(line)), None
    if learns(line):
        scored, normal = deviations.lessons(scored)
    return _Case(line.settings, scored, deviations.reference, normal)


def _rows(line: str, case: _Case) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    parts = [rng.random(len(case.scored.rows)) < 0.6 for _ in range(ROUNDS)]
    asked = [name for name in POLICIES if case.normal is not None or not name.startswith("evidence")]
    judged = np.stack([_judged(case, part, asked) for part in parts]).mean(axis=0)
    return [
        {
            "line": line,
            "policy": name,
            "AUROC": float(auroc),
            "missed at 5 % FPR": float(missed),
            "novelty alone, AUROC": float(alone),
        }
        for name, (auroc, missed, alone) in zip(asked, judged, strict=True)
    ]


def _judged(case: _Case, part: NDArray[np.bool_], asked: list[str]) -> NDArray[np.float64]:
    """(policies, 3) figures of what is not in ``part``, by what each policy learns in it."""
    told = case.of(part)
    return np.array([_judge(*POLICIES[name](told), case.scored, part) for name in asked])


def _judge(option: Option, weight: float, scored: Scored, part: NDArray[np.bool_]) -> tuple[float, ...]:
    """AUROC and misses of the hybrid, and AUROC of its novelty, on what is not in ``part``."""
    normal = part & scored.calibration
    known, unknown = (
        fit_normal_scale(raw[normal])(raw[~part]) for raw in (scored.familiarity, novelty_of(option, scored))
    )
    hybrid, labels = hybrid_scores(known, unknown, weight), scored.anomalous[~part].astype(int)
    figures = image_auroc(hybrid, labels), fnr_at_fpr(hybrid, labels, 0.05), image_auroc(unknown, labels)
    return tuple(np.nan if figure is None else figure for figure in figures)


def novelty_of(option: Option, scored: Scored) -> Floats:
    """(n,) what the option says about every image."""
    columns = scored.novelty[:, [scored.candidates.index(each) for each in option.judged]]
    if option.evidence is None:
        return columns[:, 0].astype(np.float64)
    read = [columns, scored.residuals] if option.residuals else [columns]
    return np.asarray(option.evidence(torch.from_numpy(np.concatenate(read, axis=1))).double().numpy())


def _single(case: _Case) -> Option:
    return single_option(case.settings, case.scored, case.reference)


def _surely_better(case: _Case) -> Option:
    return best_option(case.plain, case.scored)


def _appearance(case: _Case) -> Option:
    return case.plain[-1]


def _best_alone(case: _Case) -> Option:
    """The candidate that looks best by itself on the images at hand."""
    labels = case.scored.anomalous.astype(int)
    aurocs = [image_auroc(column, labels) or 0.0 for column in case.scored.novelty.T]
    return single_option(case.settings, case.scored, case.scored.candidates[int(np.argmax(aurocs))])


def _evidence(confidence: float) -> Callable[[_Case], Option]:
    """Evidence of the finest layer, unless other evidence is better by so many standard errors."""
    return lambda case: best_option(case.learned, case.scored, confidence)


def _any(case: _Case) -> Option:
    """The same, but a single deviation may take its place, too."""
    evidence_first = sorted(case.learned, key=lambda option: option.evidence is None)
    return surest_option(evidence_first, case.scored)


def _evidence_from_last(place: int) -> Callable[[_Case], Option]:
    """The last option has no explanation, the one before it that of all layers."""
    return lambda case: case.learned[-place]


def _tuned(choice: Callable[[_Case], Option]) -> Callable[[_Case], tuple[Option, float]]:
    def policy(case: _Case) -> tuple[Option, float]:
        option = choice(case)
        return option, option.figures["weight"]

    return policy


POLICIES: dict[str, Callable[[_Case], tuple[Option, float]]] = {
    "familiarity alone": lambda case: (_single(case), 0.0),
    "reference, equal weights": lambda case: (_single(case), 0.5),
    "reference, tuned weight": _tuned(_single),
    "appearance, tuned weight": _tuned(_appearance),
    "appearance unless another is surely better (novad with few anomalies)": _tuned(_surely_better),
    "best alone, tuned weight": _tuned(_best_alone),
    "evidence without an explanation, tuned weight": _tuned(_evidence_from_last(1)),
    "evidence of all layers, tuned weight": _tuned(_evidence_from_last(2)),
    "evidence of the finest layer, tuned weight": _tuned(_evidence(1e9)),  # no gain is as sure as that
    "evidence of the finest layer unless other evidence is surely better (novad)": _tuned(_evidence(SURE)),
    "evidence of the finest layer unless anything is surely better": _tuned(_any),
    "evidence, best layers, tuned weight": _tuned(_evidence(0.0)),
}
