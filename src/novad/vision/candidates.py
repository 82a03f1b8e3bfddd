"""Explainer calibration: every way to turn an explanation into a score, compared on one pass over images."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.errors import CalibrationError, ConfigError
from novad.vision.explainers import Explainer
from novad.vision.novelty import (
    JOINT,
    Candidate,
    NormalStatistics,
    StatisticMoments,
    deviation_scores,
    map_step,
    statistic_maps,
)
from novad.vision.pooling import smooth

__all__ = ["CandidateGrid", "Fits", "candidate_scores", "fit_normal_statistics"]

Fits = dict[tuple[str, float], NormalStatistics]


@dataclass(frozen=True)
class CandidateGrid:
    """Choices that span the candidates: target x statistic x smoothing x place x side x top share."""

    targets: tuple[str, ...]
    statistics: tuple[str, ...]
    smoothing: tuple[float, ...]
    top_shares: tuple[float, ...]
    computed: tuple[str, ...] = field(default=())

    @classmethod
    def of(
        cls,
        explainer: Explainer,
        targets: Sequence[str],
        statistics: Sequence[str],
        smoothing: Sequence[float],
        top_shares: Sequence[float],
    ) -> "CandidateGrid":
        """The grid over what the explainer offers; empty choices mean all of it.

        Raises:
            ConfigError: a target or statistic that the explainer does not have.
        """
        for asked, offered, key in (
            (targets, explainer.targets, "targets"),
            (statistics, explainer.statistics, "statistics"),
        ):
            if unknown := [name for name in asked if name not in offered]:
                raise ConfigError(
                    f"calibrate_explainer.{key}: no {', '.join(unknown)}; there are {', '.join(offered)}"
                )
        return cls(
            tuple(targets) or explainer.targets,
            tuple(statistics) or explainer.statistics,
            tuple(smoothing),
            tuple(top_shares),
            tuple(name for name in explainer.statistics if name != JOINT),
        )

    def reference(self, explainer: Explainer, target: str = "") -> Candidate:
        """The candidate of this grid that is nearest to where the search starts.

        The explainer's reference statistic, compared place by place, smoothed a little, the sharpest top
        share (``docs/decisions/novelty-and-fusion.md``).

        Args:
            explainer: whose reference statistic.
            target: explained layer; the grid's first, finest one when empty.
        """
        target = target or self.targets[0]
        statistic, side = explainer.reference
        smoothing = min(self.smoothing, key=lambda sigma: abs(sigma - 2.0))
        start = Candidate(target, statistic, smoothing, True, side, min(self.top_shares))
        return max(
            self.candidates(target),
            key=lambda each: sum(a == b for a, b in zip(astuple(each), astuple(start), strict=True)),
        )

    def kinds(self) -> list[tuple[str, bool, str]]:
        """(statistic, located, side) of every map; the joint distance has one side."""
        return [
            (statistic, located, side)
            for statistic, located in itertools.product(self.statistics, (False, True))
            for side in (("high",) if statistic == JOINT else ("high", "low", "both"))
        ]

    def candidates(self, target: str) -> list[Candidate]:
        """Candidates of one target, in the order of ``candidate_scores``' columns."""
        return [
            Candidate(target, statistic, smoothing, located, side, share)
            for smoothing in self.smoothing
            for statistic, located, side in self.kinds()
            for share in self.top_shares
        ]


def fit_normal_statistics(grid: CandidateGrid, batches: Iterable[tuple[Explainer, Tensor]]) -> Fits:
    """Distribution of every statistic over normal images, per target and smoothing.

    Args:
        grid: what is compared.
        batches: normal images (N, 3, H, W) in [0, 1], each batch with the explainer to ask.
    Raises:
        CalibrationError: fewer than two images.
    """
    keys = list(itertools.product(grid.targets, grid.smoothing))
    moments = {key: StatisticMoments() for key in keys}
    for explainer, images in batches:
        explanations = explainer.explain_each(images, grid.targets)
        for target, explanation in zip(grid.targets, explanations, strict=True):
            maps = statistic_maps(explanation, grid.computed, map_step((images.shape[-2], images.shape[-1])))
            for sigma in grid.smoothing:
                moments[target, sigma].add(smooth(maps, sigma))
    return {key: each.finish() for key, each in moments.items()}


def candidate_scores(
    explainer: Explainer, grid: CandidateGrid, fits: Fits, images: Tensor
) -> tuple[NDArray[np.float32], dict[str, Tensor]]:
    """Raw novelty of one batch by every candidate.

    Args:
        explainer: whose explanations.
        grid: what is compared.
        fits: from ``fit_normal_statistics``.
        images: (N, 3, H, W) in [0, 1].
    Returns:
        (N, candidates over all targets in order), and the features seen on the way (may be empty).
    Raises:
        CalibrationError: a score is not finite.
    """
    columns: list[Tensor] = []
    features: dict[str, Tensor] = {}
    explanations = explainer.explain_each(images, grid.targets)
    for target, explanation in zip(grid.targets, explanations, strict=True):
        features = dict(explanation.features)
        maps = statistic_maps(explanation, grid.computed, map_step((images.shape[-2], images.shape[-1])))
        normal = {sigma: fits[target, sigma] for sigma in grid.smoothing}
        columns.append(deviation_scores(maps, grid.computed, normal, grid.candidates(target)))
    scores = torch.cat(columns, dim=1)
    if not torch.isfinite(scores).all():
        raise CalibrationError("a novelty score is not finite")
    return scores.numpy().astype(np.float32), features
