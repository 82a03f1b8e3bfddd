"""Which layers familiarity compares and how sharply: a fixed start, unless anomalies surely ask otherwise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.config import LineSettings
from novad.stages.choosing import choosers
from novad.stages.guarded_bank import fit_bank
from novad.stages.line import Line, evenly
from novad.vision.backbones import Backbone
from novad.vision.calibration import fit_normal_scale
from novad.vision.familiarity import FamiliarityScores, familiarity_scores, feature_grids
from novad.vision.fusion import Floats, standing
from novad.vision.memory_bank import MemoryBank
from novad.vision.patch_features import NEIGHBOURHOOD
from novad.vision.preprocess import batches, images_at_once, to_batch
from novad.vision.selection import surely_better

__all__ = [
    "LayerChoice",
    "Reading",
    "auroc",
    "best_reading",
    "candidate_layers",
    "candidate_readings",
    "choose_layers",
    "compared",
    "familiar",
    "half_features",
    "reading_rows",
    "sharpness",
    "start_layers",
    "trial_banks",
    "trial_scores",
    "wide_backbone",
]

# A trial bank of so few images and vectors ranks readings as the whole bank does, at a fraction of its cost.
TRIAL_IMAGES = 64
TRIAL_VECTORS = 4000
TRIAL_PATCHES = 50_000
MOST_SCORED = 96
# Standard errors of the paired gain in AUROC by which another reading must be better.
SURE = 1.0
# And it must take away this share of what AUROC falls short of 1: a finer grid costs four times the search.
WORTH = 0.1
# Who scales images to so many pixels looks for defects that stride 16 blurs away.
FINE_DETAIL_SIZE = 448
STRIDES = {"sensory": (4, 8, 16), "semantic_near": (8, 16, 32), "semantic_far": (8, 16, 32)}

Layers = tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What familiarity compares, and how sharply.

    Attributes:
        layers: names, fine to coarse.
        neighbourhood: side of the square, in patches, that features are averaged over.
        smoothing: Gaussian sigma of the distances, in patches.
        companions: single layers that are compared beside them, unaveraged, each by a bank of its own.
    """

    layers: Layers
    neighbourhood: int
    smoothing: float
    companions: Layers = ()

    @property
    def beside(self) -> "list[Reading]":
        """What the companions compare."""
        return [Reading((layer,), 1, 0.0) for layer in self.companions]

    def grids(self, features: Mapping[str, Tensor], anomaly_type: str) -> Tensor:
        """What is compared of feature maps (N, C_l, H_l, W_l) of any precision: (N, C, h, w)."""
        chosen = {name: features[name].float() for name in self.layers}
        return feature_grids(chosen, anomaly_type, self.neighbourhood)


@dataclass(frozen=True)
class LayerChoice:
    """The reading, and what was known of each candidate when it was chosen.

    Attributes:
        reading: chosen.
        table: per candidate its layers, neighbourhood, smoothing and AUROC on the tuning split; empty where
            nothing was compared.
        stem_table: the same of its hybrid with evidence, for the best of them and the stem.
    """

    reading: Reading
    table: list[dict[str, Any]]
    stem_table: list[dict[str, Any]] = field(default_factory=list)


def choose_layers(line: Line, backbone: Backbone) -> LayerChoice:
    """The reading of the settings; what they leave open the tuning split chooses, if it can."""
    settings = line.settings
    candidates = candidate_readings(backbone, settings)
    anomalies = int((line.rows("tuning")["label"] == 1).sum())
    if not 0 < settings.memory_bank.layer_anomalies <= anomalies or len(candidates) == 1:
        return LayerChoice(replace(candidates[0], companions=companions(backbone, settings)), [])
    rows = compared(line)
    scores = trial_scores(line, candidates, rows)
    anomalous = (rows["label"] == 1).to_numpy()
    table = reading_rows(candidates, scores, anomalous)
    return LayerChoice(candidates[best_reading(scores, anomalous)], table)


def companions(backbone: Backbone, settings: LineSettings) -> Layers:
    """The finest and the coarsest layer, asked beside the start; none where the settings leave no choice.

    Which layer shows the defects of a line only its defects tell, and whether averages hide them. Together
    the three miss fewer where nobody can choose (docs/research/familiarity.md).
    """
    told, pixels = settings.memory_bank, math.prod(settings.backbone.input_size)
    fixed = settings.backbone.layers or told.neighbourhood is not None
    if fixed or settings.anomaly_type != "sensory" or pixels >= FINE_DETAIL_SIZE**2:
        return ()
    names = _at(backbone.available, STRIDES["sensory"])
    return tuple(dict.fromkeys((*names[:1], *names[-1:])))


def reading_rows(
    readings: Sequence[Reading], scores: Floats, anomalous: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """Fields and AUROC of each reading, by its column of (n, readings) scores."""
    return [
        {**asdict(each), "layers": list(each.layers), "auroc": auroc(column, anomalous)}
        for each, column in zip(readings, scores.T, strict=True)
    ]


def candidate_readings(backbone: Backbone, settings: LineSettings) -> list[Reading]:
    """What the settings leave open, the start first."""
    layers = [backbone.layers]
    if not settings.backbone.layers:
        start = start_layers(backbone, settings)
        layers = candidate_layers(backbone.available, settings.anomaly_type, start)
    return [Reading(each, *sharp) for sharp in sharpness(settings) for each in layers]


def best_reading(scores: Floats, anomalous: NDArray[np.bool_]) -> int:
    """The first column of (n, readings) scores, unless another is surely better and worth it."""
    aurocs = [auroc(column, anomalous) for column in scores.T]
    worthy = [0, *(at for at, auroc in enumerate(aurocs) if 1 - auroc < (1 - WORTH) * (1 - aurocs[0]))]
    return worthy[surely_better(scores[:, worthy], 0, anomalous, SURE)]


def sharpness(settings: LineSettings) -> list[tuple[int, float]]:
    """Neighbourhoods and smoothings to compare, the start first: averaged as PatchCore does, and not at all.

    Averages hide defects of a patch or two, and calm textures (docs/research/familiarity.md).
    """
    told = settings.memory_bank
    start = (told.neighbourhood or NEIGHBOURHOOD, told.smoothing)
    if told.neighbourhood is not None or settings.anomaly_type != "sensory":
        return [start]
    return [start, (1, 0.0)]


def start_layers(backbone: Backbone, settings: LineSettings) -> Layers:
    """Layers without any label: the network's own, finer ones for large images, deeper ones for meaning."""
    if settings.anomaly_type == "sensory":
        wanted = (8,) if math.prod(settings.backbone.input_size) >= FINE_DETAIL_SIZE**2 else ()
        found = _at(backbone.available, wanted)
        return found or backbone.layers
    wanted = (16,) if settings.anomaly_type == "semantic_near" else (32,)
    return _at(backbone.available, wanted) or tuple(backbone.available)[-1:]


def candidate_layers(available: Mapping[str, int], anomaly_type: str, start: Layers) -> list[Layers]:
    """Every single layer at strides that fit the kind of anomaly, every two neighbours, and the start."""
    names = _at(available, STRIDES[anomaly_type])
    return list(dict.fromkeys([start, *((name,) for name in names), *pairwise(names)]))


def _at(available: Mapping[str, int], strides: Sequence[int]) -> Layers:
    return tuple(name for name, stride in available.items() if stride in strides)


def compared(line: Line) -> pd.DataFrame:
    """At most so many anomalies of the tuning split, and so many of the normals that may choose."""
    rows = line.rows("calibration", "tuning")
    rows = rows[choosers(rows)]
    kinds = [evenly(rows[rows["label"] == label], MOST_SCORED) for label in (0, 1)]
    return pd.concat(kinds, ignore_index=True)


def trial_scores(line: Line, candidates: list[Reading], rows: pd.DataFrame) -> Floats:
    """(n, candidates) familiarity of the images of ``rows`` by trial banks, on one scale per candidate."""
    backbone = wide_backbone(line, candidates)
    with torch.inference_mode():
        banks = trial_banks(line, backbone, candidates)
        scores = [
            [
                familiar(line, bank, features, reading).scores
                for bank, reading in zip(banks, candidates, strict=True)
            ]
            for features in half_features(line, backbone, rows)
        ]
    raw = torch.stack([torch.cat(column) for column in zip(*scores, strict=True)], dim=1).double().numpy()
    normal = (rows["label"] == 0).to_numpy()
    return np.stack([fit_normal_scale(column[normal])(column) for column in raw.T], axis=1)


def familiar(
    line: Line, bank: MemoryBank, features: Mapping[str, Tensor], reading: Reading
) -> FamiliarityScores:
    """What a trial bank says about one batch of feature maps."""
    told = line.settings.memory_bank
    grids = reading.grids(features, line.settings.anomaly_type)
    return familiarity_scores(bank, grids, told.neighbours, told.top_share, reading.smoothing)


def trial_banks(line: Line, backbone: Backbone, readings: Sequence[Reading]) -> list[MemoryBank]:
    """Small banks, one per reading, of the same bank images; ``backbone`` gives the layers of all."""
    seen = list(half_features(line, backbone, evenly(line.rows("bank"), TRIAL_IMAGES)))
    return [_trial_bank(line, seen, reading) for reading in readings]


def _trial_bank(line: Line, seen: list[dict[str, Tensor]], reading: Reading) -> MemoryBank:
    told = line.settings.memory_bank
    smaller = told.model_copy(
        update={
            "min_vectors": min(told.min_vectors, TRIAL_VECTORS),
            "max_vectors": TRIAL_VECTORS,
            "max_patches": TRIAL_PATCHES,
            "smoothing": reading.smoothing,
        }
    )
    grids = (grid for features in seen for grid in reading.grids(features, line.settings.anomaly_type))
    images = sum(len(next(iter(features.values()))) for features in seen)
    return fit_bank(grids, images, smaller, line.settings.seed).bank


def wide_backbone(line: Line, readings: Sequence[Reading]) -> Backbone:
    """The line's network with every layer that one of the readings compares."""
    asked = (layer for each in readings for layer in (*each.layers, *each.companions))
    names = tuple(dict.fromkeys(asked))
    return line.backbone(line.settings.backbone, names)


def half_features(line: Line, backbone: Backbone, rows: pd.DataFrame) -> Iterator[dict[str, Tensor]]:
    """Feature maps of every batch, in half precision: who compares keeps those of a bank in memory."""
    size = line.settings.backbone.input_size
    for group in batches(line.images(rows), images_at_once(size)):
        yield {name: each.half() for name, each in backbone(to_batch(group, size)).items()}


def auroc(scores: Floats, anomalous: NDArray[np.bool_]) -> float:
    return round(float(standing(scores[anomalous], scores[~anomalous]).mean()), 6)
