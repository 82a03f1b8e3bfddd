"""Do thresholds hold on good parts that had no say? Tuning and test images are divided anew, many times."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs import Request, rows_of_lines
from benchmarks.report import Report
from benchmarks.selection import novelty_of, part_of
from novad.stages.deviations import Deviations, learns
from novad.stages.line import Line
from novad.stages.options import Examples, Scored, best_option, offered_options
from novad.stages.thresholds import GoodParts
from novad.vision.calibration import fit_normal_scale, promised_alpha, promised_threshold
from novad.vision.fusion import hybrid_scores

__all__ = ["measure"]

DRAWS = 10
Mask = NDArray[np.bool_]


def measure(request: Request) -> Report:
    """Judge fresh images by thresholds of calibration normals, and by those that novad sets.

    Raises:
        MissingInput: there is no trained line with labelled anomalies enough to learn.
    """
    enough = "labelled anomalies enough to learn evidence"
    rows = rows_of_lines(request, lambda line: [_row(line)] if learns(line) else [], enough)
    facts = {"draws": DRAWS, "evidence learns in the mirror": "nothing"}
    return Report("False alarms and misses at the threshold, on images that had no say", facts, rows)


def _row(line: Line) -> dict[str, Any]:
    deviations = Deviations.fit(line)
    rows = line.rows("calibration", "tuning", "test")
    scored, normal = deviations.score(rows, line.images(rows)), deviations.bank()
    figures = [_figures(deviations, scored, normal, _fresh(scored, draw)) for draw in range(DRAWS)]
    good = rows[rows["label"] == 0]["split"].value_counts()
    return {
        "line": line.name,
        "calibration normals": int(good.get("calibration", 0)),
        "good of the tuning split": int(good.get("tuning", 0)),
        **{name: float(np.mean([each[name] for each in figures])) for name in figures[0]},
    }


def _fresh(scored: Scored, draw: int) -> Mask:
    """As many good and as many bad images as the test split has, from it and the tuning split."""
    random, fresh = np.random.default_rng(draw), np.zeros(len(scored.rows), bool)
    for kind in (scored.anomalous, ~scored.anomalous):
        count = int((kind & (scored.rows["split"] == "test").to_numpy()).sum())
        fresh[random.permutation(np.flatnonzero(kind & ~scored.calibration))[:count]] = True
    return fresh


def _figures(deviations: Deviations, scored: Scored, normal: Examples, fresh: Mask) -> dict[str, float]:
    settings, part = deviations.line.settings, part_of(scored, ~fresh)
    splits = np.where(part.calibration, "calibration", "tuning")
    told = replace(part, rows=part.rows.assign(split=splits), mirrored={})
    option = best_option(offered_options(settings, told, deviations.reference, normal), told)
    familiar, novel = (fit_normal_scale(each[told.calibration]) for each in (told.familiarity, option.scores))
    weight, alpha = option.figures["weight"], settings.tune_fusion.alpha
    known = hybrid_scores(familiar(told.familiarity), novel(option.scores), weight)
    seen = familiar(scored.familiarity[fresh]), novel(novelty_of(option, scored)[fresh])
    judged, bad = hybrid_scores(*seen, weight), scored.anomalous[fresh]
    parts, figures = GoodParts.of(told.rows, known, alpha), dict[str, float]()
    for name, setters in (("calibration normals", parts.calibration), ("novad", parts.setters)):
        threshold = promised_threshold(known[setters], alpha)
        figures |= {
            f"promised, {name}": promised_alpha(int(setters.sum()), alpha),
            f"false alarms, {name}": float(np.mean(judged[~bad] > threshold)),
            f"missed, {name}": float(np.mean(judged[bad] <= threshold)),
        }
    return figures
