"""Whether familiarity reads the stem instead of deeper layers: where evidence of the memory gains by it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.stages.layer_choice import (
    LayerChoice,
    Reading,
    choose_layers,
    compared,
    familiar,
    half_features,
    reading_rows,
    sharpness,
    trial_banks,
    wide_backbone,
)
from novad.stages.learning import Lessons, cross_fitted
from novad.stages.line import Line
from novad.vision.backbones import Backbone
from novad.vision.calibration import fit_normal_scale
from novad.vision.fusion import Floats, hybrid_scores
from novad.vision.memory_bank import MemoryBank
from novad.vision.residuals import residual_deviations
from novad.vision.selection import surely_better

__all__ = ["StemTrial", "choose_reading", "stem_readings", "trial_hybrids", "try_stem"]

# Standard errors of the paired gain in AUROC. What the stem sees the explanation sees too: on lines drawn
# anew a stem that won by less made the hybrid worse (docs/research/familiarity.md).
SURELY = 3.0
# Inverse ridge penalty of the trial evidence, see ``learn_evidence``.
STRENGTH = 100.0


@dataclass(frozen=True)
class StemTrial:
    """The layers' choice and the stem, compared on the tuning split.

    Attributes:
        readings: that of the layers, then those of the stem.
        hybrids: (n, readings) scores of the compared images, see ``trial_hybrids``.
        anomalous: (n,) which of these are anomalies.
    """

    readings: list[Reading]
    hybrids: Floats
    anomalous: NDArray[np.bool_]


def choose_reading(line: Line, backbone: Backbone) -> LayerChoice:
    """The layers' choice, unless the stem with evidence of the memory is far better on the tuning split."""
    choice = choose_layers(line, backbone)
    trial = try_stem(line, backbone, choice)
    if trial is None:
        return choice
    chosen = trial.readings[surely_better(trial.hybrids, 0, trial.anomalous, SURELY)]
    return LayerChoice(chosen, choice.table, reading_rows(trial.readings, trial.hybrids, trial.anomalous))


def try_stem(line: Line, backbone: Backbone, choice: LayerChoice) -> StemTrial | None:
    """Compare the stem with the layers' choice; None where settings or labels leave nothing to ask."""
    stems = stem_readings(line, backbone)
    if not stems or not choice.table:
        return None
    rows = compared(line)
    anomalous = (rows["label"] == 1).to_numpy()
    # One image of a kind leaves none to learn from while it is held out.
    if min(anomalous.sum(), (~anomalous).sum()) < 2:
        return None
    readings = [choice.reading, *stems]
    return StemTrial(readings, trial_hybrids(line, readings, rows), anomalous)


def stem_readings(line: Line, backbone: Backbone) -> list[Reading]:
    """The stem alone, as sharply as the settings leave open; none where they name layers, or for meaning."""
    if line.settings.backbone.layers or line.settings.anomaly_type != "sensory":
        return []
    stem = tuple(name for name in backbone.readable if name not in backbone.available)
    return [Reading(stem, *each) for each in sharpness(line.settings)] if stem else []


def trial_hybrids(line: Line, readings: Sequence[Reading], rows: pd.DataFrame) -> Floats:
    """(n, readings) familiarity and evidence of the memory alone, half and half, of the images of ``rows``.

    By trial banks; evidence is learned from the residuals of these images, each judged without its own label.
    """
    backbone = wide_backbone(line, readings)
    with torch.inference_mode():
        banks = trial_banks(line, backbone, readings)
        seen = [
            [_remembered(line, *each, features) for each in zip(banks, readings, strict=True)]
            for features in half_features(line, backbone, rows)
        ]
    rows = rows.assign(part=line.parts(rows))
    return np.stack([_hybrid(list(column), rows) for column in zip(*seen, strict=True)], axis=1)


def _remembered(
    line: Line, bank: MemoryBank, reading: Reading, features: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Familiarity (N,) and residuals (N, R) of one batch."""
    found = familiar(line, bank, features, reading)
    left = bank.residuals(found.patches, found.nearest)
    return found.scores, residual_deviations(left, found.distances)


def _hybrid(batches: list[tuple[Tensor, Tensor]], rows: pd.DataFrame) -> Floats:
    known, left = (torch.cat(each).float().numpy() for each in zip(*batches, strict=True))
    anomalous = (rows["label"] == 1).to_numpy()
    nothing: NDArray[np.float32] = np.empty((0, left.shape[1]), np.float32)
    lessons = Lessons(nothing, left, anomalous, rows["part"].to_numpy(str), left[~anomalous])
    both = known.astype(np.float64), cross_fitted(lessons, STRENGTH)
    familiarity, evidence = (fit_normal_scale(each[~anomalous])(each) for each in both)
    return hybrid_scores(familiarity, evidence, 0.5)
