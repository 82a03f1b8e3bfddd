"""Ways to ask for novelty on one line: a single deviation, or all of an explanation weighed by evidence."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from novad.config import LineSettings
from novad.stages.choosing import choose_weight, choosers
from novad.stages.learning import Lessons, cross_fitted, learn_evidence
from novad.vision.calibration import fit_normal_scale
from novad.vision.evidence import Evidence, evidence_candidates
from novad.vision.fusion import hybrid_scores
from novad.vision.novelty import Candidate
from novad.vision.selection import choose, surely_better

__all__ = [
    "Examples",
    "Option",
    "Scored",
    "best_option",
    "evidence_option",
    "learned",
    "offered_options",
    "single_option",
    "surest_option",
]

# Standard errors by which evidence of other layers must fuse better (docs/decisions/novelty-and-fusion.md).
SURE = 1.0


@dataclass(frozen=True)
class Examples:
    """Deviations of images that evidence learns from besides those that it is judged on.

    Attributes:
        novelty: (b, K).
        residuals: (b, R).
    """

    novelty: NDArray[np.float32]
    residuals: NDArray[np.float32]


@dataclass(frozen=True)
class Scored:
    """Raw scores of images by every candidate.

    Attributes:
        rows: (n) images; the column ``part`` names what each shows.
        candidates: K deviations, over all targets.
        familiarity: (n,).
        novelty: (n, K).
        residuals: (n, R) deviations from the memory bank, direction by direction.
        mirrored: of the t tuning images in their order, by the name of each flip that leaves normals normal.
    """

    rows: pd.DataFrame
    candidates: list[Candidate]
    familiarity: NDArray[np.float64]
    novelty: NDArray[np.float32]
    residuals: NDArray[np.float32]
    mirrored: Mapping[str, Examples] = field(default_factory=dict)

    @property
    def calibration(self) -> NDArray[np.bool_]:
        """Which images set scales and thresholds."""
        return (self.rows["split"] == "calibration").to_numpy()

    @property
    def anomalous(self) -> NDArray[np.bool_]:
        """Which are anomalies, labelled or synthetic."""
        return (self.rows["label"] == 1).to_numpy()

    @property
    def chooses(self) -> NDArray[np.bool_]:
        """Which have a say in how novelty is asked for."""
        return choosers(self.rows)


@dataclass(frozen=True)
class Option:
    """One way to ask for novelty.

    Attributes:
        name: for people.
        judged: deviations that it reads, all of one target.
        evidence: how they are weighed; None for a single one.
        residuals: whether the evidence goes on to weigh memory residuals.
        scores: (n,) what it says about every calibration and tuning image without having learned from it.
        hybrid: (n,) fused with familiarity at the weight that suits it.
        figures: AUROC and misses on the tuning split, alone and fused.
    """

    name: str
    judged: tuple[Candidate, ...]
    evidence: Evidence | None
    residuals: bool
    scores: NDArray[np.float64]
    hybrid: NDArray[np.float64]
    figures: dict[str, float]


def offered_options(
    settings: LineSettings, scored: Scored, reference: Candidate, normal: Examples | None
) -> list[Option]:
    """Single deviations, appearance last, and with labelled anomalies enough the evidence of every target.

    Evidence of the memory alone, which asks for no explanation, comes after them.

    Beside evidence, whose figures are cross-fitted, the single one is the reference: a searched one would
    be judged on what it was chosen by.

    Args:
        settings: of the line.
        scored: calibration and tuning images.
        reference: where the search for a single deviation starts.
        normal: bank images; None where there are too few anomalies to learn from.
    """
    known = [single_option(settings, scored, each) for each in scored.candidates if not each.explained]
    if normal is None:
        asked = scored.chooses
        chosen = choose(scored.candidates, reference, scored.novelty[asked], scored.anomalous[asked])
        return [single_option(settings, scored, chosen), *known]
    targets = list(dict.fromkeys(each.target for each in scored.candidates if each.explained))
    # What evidence is without any explanation is told beside it, wherever appearance says something.
    evidence = [
        evidence_option(settings, scored, normal, target) for target in (*targets, *([None] if known else []))
    ]
    return [single_option(settings, scored, reference), *known, *evidence]


def best_option(options: list[Option], scored: Scored, confidence: float = SURE) -> Option:
    """Evidence of the finest layer, or appearance where nobody learned, unless another surely fuses better.

    The finest layer has the shortest way back to the input, and evidence of deeper ones finds no more. Where
    evidence was learned only other evidence can take its place: a single deviation that happens to fuse well
    with familiarity on a few dozen images says little by itself (docs/decisions/novelty-and-fusion.md).

    Args:
        options: from ``offered_options``.
        scored: what they scored.
        confidence: standard errors of the paired gain in AUROC that another must exceed.
    """
    evidence = [option for option in options if option.evidence is not None]
    return surest_option(evidence or options[::-1], scored, confidence)


def surest_option(options: list[Option], scored: Scored, confidence: float = SURE) -> Option:
    """The first of the options, unless another surely fuses better; see ``best_option``."""
    hybrids, asked = np.stack([option.hybrid for option in options], axis=1), scored.chooses
    return options[surely_better(hybrids[asked], 0, scored.anomalous[asked], confidence)]


def single_option(settings: LineSettings, scored: Scored, chosen: Candidate) -> Option:
    """One deviation alone."""
    raw = scored.novelty[:, scored.candidates.index(chosen)].astype(np.float64)
    return _option(settings, scored, f"{chosen.statistic} of {chosen.target}", (chosen,), None, raw)


def evidence_option(settings: LineSettings, scored: Scored, normal: Examples, target: str | None) -> Option:
    """All deviations of one target, and from the memory, weighed by what labelled anomalies show.

    Args:
        settings: of the line.
        scored: calibration and tuning images.
        normal: bank images that the normal statistics were not fitted on, without their own vectors.
        target: explained layer or layers; None for the memory alone.
    """
    own = [at for at, each in enumerate(scored.candidates) if each.target == target]
    columns = [own[at] for at in evidence_candidates([scored.candidates[at] for at in own])]
    columns += [at for at, each in enumerate(scored.candidates) if not each.explained]
    told = settings.calibrate_explainer

    def read(each: Examples | Scored) -> NDArray[np.float32]:
        picked = each.novelty[:, columns]
        return np.concatenate([picked, each.residuals], axis=1) if told.residuals else picked

    judged = tuple(scored.candidates[at] for at in columns)
    free = tuple(at for at, each in enumerate(judged) if not each.explained)
    mirrored = tuple(read(each) for each in scored.mirrored.values())
    evidence, scores = learned(scored, read(normal), read(scored), told.evidence_strength, free, mirrored)
    name = f"evidence of {target}" if target else "evidence without an explanation"
    return _option(settings, scored, name, judged, evidence, scores)


def learned(
    scored: Scored,
    taught: NDArray[np.float32],
    seen: NDArray[np.float32],
    strength: float,
    free: tuple[int, ...] = (),
    mirrored: tuple[NDArray[np.float32], ...] = (),
) -> tuple[Evidence, NDArray[np.float64]]:
    """Evidence of some deviations, and what it says about each image without having learned from it.

    Args:
        scored: calibration and tuning images.
        taught: (b, K) deviations of bank images.
        seen: (n, K) of ``scored``.
        strength: inverse ridge penalty, see ``learn_evidence``.
        free: columns without one, see ``Lessons``.
        mirrored: (t, K) of the tuning images of ``scored``, once per flip.
    """
    tuning = ~scored.calibration
    lessons = Lessons(
        taught,
        seen[tuning],
        scored.anomalous[tuning],
        scored.rows["part"].to_numpy(str)[tuning],
        seen[scored.calibration],
        free,
        mirrored,
    )
    evidence = learn_evidence(lessons, strength)
    scores = np.zeros(len(scored.rows))
    scores[tuning] = cross_fitted(lessons, strength)
    scores[scored.calibration] = evidence(torch.from_numpy(lessons.calibration)).double().numpy()
    return evidence, scores


def _option(
    settings: LineSettings,
    scored: Scored,
    name: str,
    judged: tuple[Candidate, ...],
    evidence: Evidence | None,
    scores: NDArray[np.float64],
) -> Option:
    """With its figures, alone and fused at the weight that the fusion stage would choose."""
    known, unknown = (fit_normal_scale(raw[scored.calibration])(raw) for raw in (scored.familiarity, scores))
    choice = choose_weight(scored.rows, known, unknown, settings.tune_fusion)
    fused = next(row for row in choice.table if row["weight"] == choice.weight)
    figures = {
        "auroc": choice.table[-1]["auroc"],
        "miss_rate": choice.table[-1]["miss_rate"],
        "weight": choice.weight,
        "hybrid_auroc": fused["auroc"],
        "hybrid_miss_rate": fused["miss_rate"],
    }
    hybrid = hybrid_scores(known, unknown, choice.weight)
    residuals = evidence is not None and settings.calibrate_explainer.residuals
    return Option(name, judged, evidence, residuals, scores, hybrid, figures)
