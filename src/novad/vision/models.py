"""What a detector is made of: models of familiarity and novelty, which score raw, and of their fusion."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.errors import CalibrationError
from novad.vision.appearance import ALONE, AppearanceNovelty, appearance
from novad.vision.backbones import Backbone
from novad.vision.calibration import NormalScale
from novad.vision.detection import Thresholds
from novad.vision.evidence import Evidence
from novad.vision.explainers import Explainer
from novad.vision.familiarity import FamiliarityScores, familiarity_scores, feature_grids, joined
from novad.vision.maps import MapScale
from novad.vision.memory_bank import MemoryBank
from novad.vision.novelty import (
    JOINT,
    Candidate,
    NormalStatistics,
    deviation,
    deviation_scores,
    map_step,
    statistic_maps,
)
from novad.vision.patch_evidence import PatchEvidence, patch_deviations
from novad.vision.patch_features import NEIGHBOURHOOD
from novad.vision.pooling import smooth, top_means
from novad.vision.residuals import residual_deviations

__all__ = [
    "Explained",
    "FamiliarityModel",
    "FusionModel",
    "NoveltyModel",
    "RawScores",
    "deviations_of_patches",
    "raw_scores",
]

_NO_APPEARANCE = "novelty reads appearance, of which this memory bank knows nothing"


@dataclass(frozen=True)
class FamiliarityModel:
    """Everything that gives a raw familiarity score.

    Attributes:
        backbone: of the features.
        bank: normal vectors.
        anomaly_type: ``sensory``, ``semantic_near`` or ``semantic_far``.
        neighbours: nearest vectors averaged.
        top_share: share of patches in the image score.
        smoothing: Gaussian sigma of the distances, in patches.
        images: (path, sha256) of the images that the bank was built from.
        neighbourhood: side of the square, in patches, that features are averaged over.
        layers: of the backbone that the bank compares; all of them by default.
        companions: layer that each of the bank's companions compares, unaveraged.
        appearance_neighbourhood: side of the square that appearance is averaged over.
    """

    backbone: Backbone
    bank: MemoryBank
    anomaly_type: str
    neighbours: int
    top_share: float
    smoothing: float = 0.0
    images: tuple[tuple[str, str], ...] = ()
    neighbourhood: int = NEIGHBOURHOOD
    layers: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    appearance_neighbourhood: int = NEIGHBOURHOOD

    def score(
        self, features: Mapping[str, Tensor], own: NDArray[np.int32] | None = None
    ) -> FamiliarityScores:
        """Score the backbone's feature maps; ``own`` numbers bank images, which must not find themselves."""
        grids = feature_grids(features, self.anomaly_type, self.neighbourhood, self.layers)
        found = familiarity_scores(self.bank, grids, self.neighbours, self.top_share, self.smoothing, own)
        if not self.companions:
            return found
        beside = []
        for layer, bank in zip(self.companions, self.bank.companions, strict=True):
            grids = feature_grids(features, self.anomaly_type, 1, (layer,))
            beside.append(familiarity_scores(bank, grids, self.neighbours, self.top_share, own=own))
        return joined([self.bank, *self.bank.companions], [found, *beside])

    def differences(self, images: Tensor, found: FamiliarityScores) -> Tensor | None:
        """(N, A, h, w) how else patches of images (N, 3, H, W) look than those of their nearest vectors.

        None where the bank does not know what those looked like.
        """
        if self.bank.appearance is None:
            return None
        expected = self.bank.appearance[found.nearest]
        _, rows, columns = found.nearest.shape
        seen = appearance(images, (rows, columns), self.appearance_neighbourhood)
        # Banks of before know fewer figures.
        return seen[:, : expected.shape[-1]] - expected.permute(0, 3, 1, 2)

    def residuals(self, found: FamiliarityScores, differences: Tensor | None) -> Tensor:
        """(N, h, w, D + 9) what nearest vectors leave unexplained of patches, direction by direction.

        First of the features, then of what the patches look like where the bank knows that: alone, and how
        much lighter than their surroundings.
        """
        left = self.bank.residuals(found.patches, found.nearest)
        if differences is None:
            return left
        looks, around = differences[:, :ALONE], differences[:, ALONE:]
        if around.shape[1]:  # One figure of the three: few labels can weigh few (docs/research/evidence.md).
            looks = torch.cat([looks, around.mean(1, keepdim=True)], dim=1)
        return torch.cat([left, looks.permute(0, 2, 3, 1)], dim=3)


@dataclass(frozen=True)
class Explained:
    """What the explanation of N images shows.

    Attributes:
        deviations: (N, J) that the score reads.
        maps: (N, h, w) of the deviation that is shown; empty where that is none of the explanation.
        features: feature maps seen on the way; may be empty.
    """

    deviations: Tensor
    maps: Tensor
    features: Mapping[str, Tensor]


@dataclass(frozen=True)
class NoveltyModel:
    """Everything that gives a raw novelty map and a score, from an explanation, the memory and appearance.

    Attributes:
        explainer: of the images.
        shown: the deviation that the map shows.
        judged: deviations that the score reads; those of the explanation are of one target, and appearance
            comes after them.
        evidence: how they are weighed; None when a single one is the score.
        normal: distribution of the target's statistics over normal images, per smoothing.
        residuals: whether the evidence goes on to weigh what the memory bank leaves unexplained.
        appearance: what appearance is usual; None where neither map nor score reads it.
        patches: what masked anomalies taught about maps; None where it does not give the map.
    """

    explainer: Explainer
    shown: Candidate
    judged: tuple[Candidate, ...]
    evidence: Evidence | None
    normal: Mapping[float, NormalStatistics]
    residuals: bool = False
    appearance: AppearanceNovelty | None = None
    patches: PatchEvidence | None = None

    @property
    def target(self) -> str:
        """The explained layer or layers; the explainer's first where no explanation is read."""
        read = [each.target for each in (self.shown, *self.judged) if each.explained]
        return (*read, self.explainer.targets[0])[0]

    @property
    def remembers(self) -> bool:
        """Whether score or map read what the memory bank leaves unexplained."""
        return self.residuals or self.appearance is not None

    @cached_property
    def _explained(self) -> tuple[Candidate, ...]:
        return tuple(each for each in self.judged if each.explained)

    @cached_property
    def _needed(self) -> tuple[tuple[str, ...], Mapping[float, NormalStatistics]]:
        """Statistics that map and score read, and their distributions: all where a joint one is read."""
        computed = tuple(name for name in self.explainer.statistics if name != JOINT)
        read = {each.statistic for each in (self.shown, *self.judged) if each.explained}
        if JOINT in read:
            return computed, self.normal
        places = [at for at, name in enumerate(computed) if name in read]
        return (
            tuple(computed[at] for at in places),
            {smoothing: each.only(places) for smoothing, each in self.normal.items()},
        )

    def explain(self, images: Tensor) -> Explained:
        """Deviations of the explanations of images (N, 3, H, W), and their maps."""
        shown, (names, normal), no_maps = self.shown, self._needed, images.new_empty(len(images), 0, 0)
        if not names:
            return Explained(images.new_empty(len(images), 0), no_maps, {})
        explanation = self.explainer.explain(images, self.target)
        statistics = statistic_maps(explanation, names, map_step((images.shape[-2], images.shape[-1])))
        deviations = deviation_scores(statistics, names, normal, self._explained)
        if not shown.explained:
            return Explained(deviations, no_maps, explanation.features)
        smoothed, usual = smooth(statistics, shown.smoothing), normal[shown.smoothing]
        maps = deviation(smoothed, names, usual, shown.statistic, shown.located, shown.side)
        return Explained(deviations, maps, explanation.features)

    def deviations(self, explained: Tensor, looks: Tensor) -> Tensor:
        """(N, J) that the score reads, from those of the explanation and (N, h, w) maps of appearance."""
        if len(self.judged) == len(self._explained):
            return explained
        return torch.cat([explained, top_means(looks, [self.judged[-1].top_share])], dim=1)

    def score(self, deviations: Tensor, residuals: Tensor | None = None) -> Tensor:
        """(N,) raw scores of (N, J) deviations, and of (N, K) memory residuals where these are read."""
        if self.evidence is None:
            return deviations[:, 0]
        read = [deviations] if residuals is None else [deviations, residuals]
        return self.evidence(torch.cat(read, dim=1))


@dataclass(frozen=True)
class FusionModel:
    """Scales, weight and thresholds: from raw scores to a decision.

    Attributes:
        familiarity: scale of its image scores.
        novelty: scale of its image scores.
        familiarity_map: scale of its maps.
        novelty_map: scale of its maps.
        weight: share of novelty in the hybrid score.
        map_weight: share of novelty in the hybrid map.
        thresholds: of the decision and the maps.
        normal_scores: (n,) hybrid scores of the normals that set the thresholds.
    """

    familiarity: NormalScale
    novelty: NormalScale
    familiarity_map: MapScale
    novelty_map: MapScale
    weight: float
    map_weight: float
    thresholds: Thresholds
    normal_scores: NDArray[np.float64]


@dataclass(frozen=True)
class RawScores:
    """Scores of N images before calibration, in the units of their own method."""

    familiarity: FamiliarityScores
    novelty: Tensor
    novelty_maps: Tensor


def raw_scores(familiarity: FamiliarityModel, novelty: NoveltyModel, images: Tensor) -> RawScores:
    """Both raw scores of images (N, 3, H, W), with one forward pass where both use the same network.

    Raises:
        CalibrationError: novelty asks for appearance and the bank does not know what its patches looked like.
    """
    explained = novelty.explain(images)
    with torch.inference_mode():
        shared = explained.features and novelty.explainer.backbone is familiarity.backbone
        features = explained.features if shared else familiarity.backbone(images)
        found = familiarity.score(features)
        if not novelty.remembers:
            return RawScores(found, novelty.score(explained.deviations), explained.maps)
        differences = familiarity.differences(images, found)
        left = familiarity.residuals(found, differences)
        residuals = residual_deviations(left, found.distances) if novelty.residuals else None
        if novelty.appearance is None:
            return RawScores(found, novelty.score(explained.deviations, residuals), explained.maps)
        if differences is None:
            raise CalibrationError(_NO_APPEARANCE)
        looks = novelty.appearance(differences)
        score = novelty.score(novelty.deviations(explained.deviations, looks), residuals)
        if novelty.patches is not None:
            features = left[..., : found.patches.shape[-1]]
            deviations = patch_deviations(found.distances, looks, differences, features)
            return RawScores(found, score, novelty.patches(deviations))
        return RawScores(found, score, explained.maps if novelty.shown.explained else looks)


def deviations_of_patches(
    familiarity: FamiliarityModel, appearance: AppearanceNovelty, images: Tensor
) -> tuple[Tensor, Tensor]:
    """Maps of familiarity (N, h, w) of images (N, 3, H, W), and deviations (N, C, h, w) of their patches.

    See ``patch_deviations``.

    Raises:
        CalibrationError: the bank does not know what its patches looked like.
    """
    with torch.inference_mode():
        found = familiarity.score(familiarity.backbone(images))
        differences = familiarity.differences(images, found)
        if differences is None:
            raise CalibrationError(_NO_APPEARANCE)
        features = familiarity.residuals(found, None)
        return found.maps, patch_deviations(found.distances, appearance(differences), differences, features)
