"""The detector: familiarity, novelty and their fusion, with thresholds, over a stream of images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.errors import CalibrationError
from novad.vision.appearance import APPEARANCE, AppearanceNovelty, appearance
from novad.vision.backbones import Backbone
from novad.vision.calibration import NormalScale, conformal_p_values
from novad.vision.detection import Detection, NearestNormal, Thresholds
from novad.vision.evidence import Evidence
from novad.vision.explainers import Explainer
from novad.vision.familiarity import FamiliarityScores, familiarity_scores, feature_grids
from novad.vision.fusion import hybrid_scores
from novad.vision.maps import MapScale, fuse_maps
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
from novad.vision.pooling import smooth, top_means
from novad.vision.preprocess import PixelArray, batches, images_at_once, to_batch
from novad.vision.residuals import residual_deviations

__all__ = [
    "Detector",
    "Explained",
    "FamiliarityModel",
    "FusionModel",
    "NoveltyModel",
    "RawScores",
    "raw_scores",
]


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
    """

    backbone: Backbone
    bank: MemoryBank
    anomaly_type: str
    neighbours: int
    top_share: float
    smoothing: float = 0.0
    images: tuple[tuple[str, str], ...] = ()

    def score(
        self, features: Mapping[str, Tensor], own: NDArray[np.int32] | None = None
    ) -> FamiliarityScores:
        """Score the backbone's feature maps; ``own`` numbers bank images, which must not find themselves."""
        grids = feature_grids(features, self.anomaly_type)
        return familiarity_scores(self.bank, grids, self.neighbours, self.top_share, self.smoothing, own)

    def differences(self, images: Tensor, found: FamiliarityScores) -> Tensor | None:
        """(N, 8, h, w) how else patches of images (N, 3, H, W) look than those of their nearest vectors.

        None where the bank does not know what those looked like.
        """
        if self.bank.appearance is None:
            return None
        expected = self.bank.appearance[torch.from_numpy(found.nearest)]
        _, rows, columns = found.nearest.shape
        return appearance(images, (rows, columns)) - expected.permute(0, 3, 1, 2)

    def residuals(
        self, features: Mapping[str, Tensor], found: FamiliarityScores, differences: Tensor | None
    ) -> Tensor:
        """(N, K) deviations of images from the patches of their nearest vectors.

        Direction by direction in the features, and in what the patches look like where the bank knows that.
        """
        left = self.bank.residuals(feature_grids(features, self.anomaly_type), found.nearest)
        if differences is not None:
            left = torch.cat([left, differences.permute(0, 2, 3, 1)], dim=3)
        return residual_deviations(left, found.distances)


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
    """

    explainer: Explainer
    shown: Candidate
    judged: tuple[Candidate, ...]
    evidence: Evidence | None
    normal: Mapping[float, NormalStatistics]
    residuals: bool = False
    appearance: AppearanceNovelty | None = None

    @property
    def target(self) -> str:
        """The explained layer or layers; the explainer's first where no explanation is read."""
        read = [each.target for each in (self.shown, *self.judged) if each.target != APPEARANCE]
        return (*read, self.explainer.targets[0])[0]

    @cached_property
    def _explained(self) -> tuple[Candidate, ...]:
        return tuple(each for each in self.judged if each.target != APPEARANCE)

    @cached_property
    def _needed(self) -> tuple[tuple[str, ...], Mapping[float, NormalStatistics]]:
        """Statistics that map and score read, and their distributions: all where a joint one is read."""
        computed = tuple(name for name in self.explainer.statistics if name != JOINT)
        read = {each.statistic for each in (self.shown, *self.judged) if each.target != APPEARANCE}
        if JOINT in read:
            return computed, self.normal
        places = [at for at, name in enumerate(computed) if name in read]
        return (
            tuple(computed[at] for at in places),
            {smoothing: each.only(places) for smoothing, each in self.normal.items()},
        )

    def explain(self, images: Tensor) -> Explained:
        """Deviations of the explanations of images (N, 3, H, W), and their maps."""
        shown, (names, normal), no_maps = self.shown, self._needed, torch.empty(len(images), 0, 0)
        if not names:
            return Explained(torch.empty(len(images), 0), no_maps, {})
        explanation = self.explainer.explain(images, self.target)
        statistics = statistic_maps(explanation, names, map_step(images.shape[-1]))
        deviations = deviation_scores(statistics, names, normal, self._explained)
        if shown.target == APPEARANCE:
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
        normal_scores: (n,) hybrid scores of calibration normals.
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
        read = novelty.residuals or novelty.appearance is not None
        differences = familiarity.differences(images, found) if read else None
        residuals = familiarity.residuals(features, found, differences) if novelty.residuals else None
        if novelty.appearance is None:
            return RawScores(found, novelty.score(explained.deviations, residuals), explained.maps)
        if differences is None:
            raise CalibrationError("novelty reads appearance, of which this memory bank knows nothing")
        looks = novelty.appearance(differences)
        score = novelty.score(novelty.deviations(explained.deviations, looks), residuals)
        return RawScores(found, score, looks if novelty.shown.target == APPEARANCE else explained.maps)


class Detector:
    """A trained line's judge.

    Example:
        >>> detector = Detector.load("artifacts/brushed-metal/evaluate/detector")  # doctest: +SKIP
        >>> [result.decision for result in detector.score(images)]  # doctest: +SKIP
        ['PASS', 'FAIL']

    Args:
        line: product line.
        image_size: side to which images are scaled, in pixels.
        familiarity: model of the first question.
        novelty: model of the second.
        fusion: from both to a decision.
        digest: sha256 of the files it was loaded from; empty for one that was never saved.
    """

    def __init__(
        self,
        line: str,
        image_size: int,
        familiarity: FamiliarityModel,
        novelty: NoveltyModel,
        fusion: FusionModel,
        digest: str = "",
    ) -> None:
        self.line, self.image_size, self.digest = line, image_size, digest
        self.familiarity, self.novelty, self.fusion = familiarity, novelty, fusion

    @classmethod
    def load(cls, folder: Path | str) -> "Detector":
        """Load a saved detector after checking the digest of every file.

        Raises:
            IntegrityError: a file is missing or is not the one recorded.
        """
        from novad.vision.detector_files import load_detector

        return load_detector(Path(folder))

    @property
    def thresholds(self) -> Thresholds:
        """Thresholds of the decision and the maps."""
        return self.fusion.thresholds

    def with_thresholds(self, fail: float, review: float, alpha: float) -> "Detector":
        """The same judge with another decision; scores, maps and their thresholds stay."""
        changed = replace(self.thresholds, fail=fail, review=review, alpha=alpha)
        fusion = replace(self.fusion, thresholds=changed)
        return Detector(
            self.line, self.image_size, self.familiarity, self.novelty, fusion, digest=self.digest
        )

    @property
    def backbone(self) -> str:
        """Architecture that judges familiarity."""
        return self.familiarity.backbone.architecture

    def score(self, images: Iterable[PixelArray], batch_size: int = 8) -> Iterator[Detection]:
        """Judge images one batch at a time.

        Args:
            images: (H, W, 3) uint8 or uint16 arrays; sizes may differ.
            batch_size: images per pass at most; of large ones fewer are taken.
        Yields:
            One ``Detection`` per image, in order.
        Raises:
            ImageError: an array that is not an image.
        """
        for group in batches(images, images_at_once(self.image_size, batch_size)):
            yield from self._judge(group)

    def _judge(self, group: Sequence[PixelArray]) -> list[Detection]:
        raw = raw_scores(self.familiarity, self.novelty, to_batch(group, self.image_size))
        fusion, found = self.fusion, raw.familiarity
        familiarity = fusion.familiarity(found.scores.numpy())
        novelty = fusion.novelty(raw.novelty.numpy())
        hybrid = hybrid_scores(familiarity, novelty, fusion.weight)
        p_values = conformal_p_values(hybrid, fusion.normal_scores)
        maps = fuse_maps(
            fusion.familiarity_map(found.distances), fusion.novelty_map(raw.novelty_maps), fusion.map_weight
        )
        return [
            Detection(
                familiarity=float(familiarity[at]),
                novelty=float(novelty[at]),
                hybrid=float(hybrid[at]),
                p_value=float(p_values[at]),
                decision=self.thresholds.decide(float(hybrid[at])),
                nearest=self._nearest(found, at),
                size=(image.shape[0], image.shape[1]),
                coarse_maps={name: each[at].numpy().astype(np.float32) for name, each in maps.items()},
            )
            for at, image in enumerate(group)
        ]

    def _nearest(self, found: FamiliarityScores, at: int) -> NearestNormal:
        distances = found.distances[at]
        worst = int(distances.argmax())
        vector = int(found.nearest[at].reshape(-1)[worst])
        image, row, column = (int(part) for part in self.familiarity.bank.origins[vector])
        path, sha256 = self.familiarity.images[image]
        rows, columns = distances.shape
        distance = float(distances.reshape(-1)[worst])
        place = divmod(worst, columns)
        return NearestNormal(path, sha256, row, column, distance, (rows, columns), place)
