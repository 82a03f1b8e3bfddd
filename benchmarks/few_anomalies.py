"""How many labelled anomalies it takes to choose how familiarity reads, and to learn novelty from."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.inputs import Request
from benchmarks.readings import ReadLine
from benchmarks.report import Report
from benchmarks.selection import novelty_of, part_of
from novad.evaluation.metrics import fnr_at_fpr, image_auroc
from novad.stages.calibrate_explainer import tuning_images
from novad.stages.deviations import Deviations
from novad.stages.layer_choice import best_reading, trial_scores
from novad.stages.line import Line
from novad.stages.options import Examples, Scored, evidence_option, single_option
from novad.vision.calibration import fit_normal_scale
from novad.vision.fusion import hybrid_scores

__all__ = ["measure"]

ANOMALIES = (5, 8, 14, 20)
DRAWS = 8
VECTORS = 8000
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def measure(request: Request) -> Report:
    """Choose and learn on a few anomalies and 60 % of the normals of every line; judge on the others.

    Raises:
        MissingInput: there is no line of patches with labelled anomalies.
    """
    rows = [row for read in ReadLine.labelled(request) for row in _rows(read)]
    facts = {"draws": DRAWS, "fused with novelty at": "equal weights", "the test split is": "not opened"}
    return Report("Few labelled anomalies: means over the images that nothing was learned from", facts, rows)


def _rows(read: ReadLine) -> Iterator[dict[str, Any]]:
    line, labels = read.line, read.labels
    rows = line.rows("calibration", "tuning")
    trial = trial_scores(line, read.readings, rows)
    full = np.stack([read.score(each, VECTORS)[0].double().numpy() for each in read.readings], axis=1)
    deviations = Deviations.fit(line)
    scored, normal = deviations.lessons(deviations.score(*tuning_images(line)))
    for count in ANOMALIES:
        if count > 2 * (labels == 1).sum() // 3:
            continue
        read_by, fused = [], []
        for draw in range(DRAWS):
            taught = _drawn(labels, count, draw)
            best = best_reading(trial[taught], labels[taught] == 1)
            read_by.append([image_auroc(full[~taught, at], labels[~taught]) for at in (0, best)])
            fused.append(_fused(line, scored, normal, taught))
        start, chosen = np.mean(np.array(read_by, float), axis=0)
        yield {
            "line": line.name,
            "anomalies": count,
            "mirrored": ", ".join(scored.mirrored),
            "familiarity as it starts": start,
            "familiarity as chosen": chosen,
            **{name: _told([each[name] for each in fused]) for name in fused[0]},
        }


def _drawn(labels: NDArray[np.int64], count: int, draw: int) -> Mask:
    """So many anomalies, and 60 % of the normals."""
    random, taught = np.random.default_rng(draw), np.zeros(len(labels), bool)
    normal = np.flatnonzero(labels == 0)
    taught[random.permutation(np.flatnonzero(labels == 1))[:count]] = True
    taught[random.permutation(normal)[: 6 * len(normal) // 10]] = True
    return taught


def _fused(line: Line, scored: Scored, normal: Examples, taught: Mask) -> dict[str, tuple[float, float]]:
    """AUROC and misses on what was not taught, by familiarity alone and fused with appearance or evidence."""
    part = part_of(scored, taught)
    look = next(each for each in scored.candidates if not each.explained)
    target = next(each.target for each in scored.candidates if each.explained)
    options = {
        "familiarity": None,
        "with appearance": single_option(line.settings, part, look),
        "with evidence": evidence_option(line.settings, part, normal, target),
        "with evidence, nothing mirrored": evidence_option(
            line.settings, replace(part, mirrored={}), normal, target
        ),
    }
    labels, scale = scored.anomalous[~taught].astype(int), taught & scored.calibration
    known = fit_normal_scale(scored.familiarity[scale])(scored.familiarity[~taught])
    figures = {}
    for name, option in options.items():
        hybrid = known
        if option is not None:
            raw = novelty_of(option, scored)
            hybrid = hybrid_scores(known, fit_normal_scale(raw[scale])(raw[~taught]), 0.5)
        figures[name] = (image_auroc(hybrid, labels) or 0.0, fnr_at_fpr(hybrid, labels, 0.05) or 0.0)
    return figures


def _told(figures: list[tuple[float, float]]) -> str:
    auroc, missed = np.mean(figures, axis=0)
    return f"{auroc:.3f}, {missed:.2f}"
