"""Novelty: how unusual an image's explained and unexplained evidence is against normal images."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from novad.errors import CalibrationError
from novad.vision.explainers import Explanation
from novad.vision.pooling import extreme_means, smooth
from novad.vision.preprocess import Size, height_and_width

__all__ = [
    "APPEARANCE",
    "JOINT",
    "PATCHES",
    "Candidate",
    "NormalStatistics",
    "StatisticMoments",
    "deviation",
    "deviation_scores",
    "map_step",
    "statistic_maps",
]

JOINT = "joint"
# Targets that are none of the explanation: what patches look like, and learned maps.
APPEARANCE, PATCHES = "appearance", "patches"


@dataclass(frozen=True, order=True)
class Candidate:
    """One way to turn an explanation into a novelty score.

    Attributes:
        target: explained layer, or layers joined by ``+``.
        statistic: name of a per-pixel statistic, or ``joint`` for all of them together.
        smoothing: Gaussian sigma in map positions.
        located: compare with normals at the same place rather than anywhere.
        side: ``high``, ``low`` or ``both``: which deviation is novel.
        top_share: share of map positions that the image score averages.
    """

    target: str
    statistic: str
    smoothing: float
    located: bool
    side: str
    top_share: float

    @property
    def explained(self) -> bool:
        """Whether it reads an explanation; the others read the memory."""
        return self.target not in (APPEARANCE, PATCHES)


def map_step(image_size: Size) -> int:
    """Pixels per map position: 2, and more for large images so that maps stay near 128 x 128 positions."""
    return max(2, round(math.sqrt(math.prod(height_and_width(image_size))) / 128))


def statistic_maps(explanation: Explanation, names: Sequence[str], step: int) -> Tensor:
    """Per-pixel statistics, averaged over cells of ``step`` pixels.

    Args:
        explanation: of N images.
        names: which; ``joint`` is not one of them, it is formed from the others.
        step: side of a cell.
    Returns:
        (N, len(names), H // step, W // step).
    """
    return torch.stack([F.avg_pool2d(_statistic(explanation, name), step) for name in names], dim=1)


def _statistic(explanation: Explanation, name: str) -> Tensor:
    weight, encoded = explanation.weight, explanation.encoded
    if name == "contribution":
        return explanation.contribution
    if name == "magnitude":
        return torch.log(explanation.contribution.abs() + 1e-6)
    if weight is None:
        raise CalibrationError(f"this explainer has no weights to take the statistic '{name}' from")
    if name == "weight_norm":
        return torch.log(_length(weight) + 1e-6)
    if name == "alignment":
        lengths = _length(weight) * _length(encoded)
        return explanation.contribution / lengths.clamp_min(1e-12)
    if name == "colour_residual":
        return _colour_residual(weight, encoded)
    raise CalibrationError(f"there is no novelty statistic '{name}'")


def _length(vectors: Tensor) -> Tensor:
    # Not torch's norm: along the channel dimension it takes 100 times as long.
    return vectors.square().sum(dim=1).sqrt()


def _colour_residual(weight: Tensor, encoded: Tensor) -> Tensor:
    """Distance between the colour that the weights encode, w+_c / (w+_c + w+_(c+3)), and the one seen."""
    positive = weight.clamp_min(0)
    colour, inverse = positive[:, :3], positive[:, 3:]
    total = colour + inverse
    decoded = torch.where(total > 0, colour / total.clamp_min(1e-12), 0.5)
    return (decoded - encoded[:, :3]).abs().mean(1)


@dataclass(frozen=True)
class NormalStatistics:
    """Distribution of smoothed statistics over normal images, for one target and smoothing.

    Attributes:
        mean: (S, H, W) per place.
        spread: (S, H, W) standard deviation per place.
        centre: (S,) over all places.
        precision: (S, S) inverse covariance over all places.
        located_precision: (S, S) inverse covariance of deviations from ``mean``.
        scale: (S,) standard deviation over all places.
    """

    mean: Tensor
    spread: Tensor
    centre: Tensor
    scale: Tensor
    precision: Tensor
    located_precision: Tensor

    def only(self, places: Sequence[int]) -> "NormalStatistics":
        """The distributions of the statistics at ``places``, without any joint one."""
        rows = torch.tensor(places, dtype=torch.long)
        fields = {name: tensor[rows] for name, tensor in self.tensors().items() if "precision" not in name}
        none = torch.eye(len(places), device=self.mean.device)
        return NormalStatistics(**fields, precision=none, located_precision=none)

    def tensors(self) -> dict[str, Tensor]:
        """Fields by name, for saving."""
        return {name: getattr(self, name).contiguous() for name in self.__dataclass_fields__}


class StatisticMoments:
    """Streams statistic maps of normal images into ``NormalStatistics``, one image batch at a time."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | None = None
        self._square: Tensor | None = None
        self._outer: Tensor | None = None

    def add(self, maps: Tensor) -> None:
        """Take (N, S, H, W) smoothed maps."""
        wide = maps.double()
        if self._sum is None or self._square is None or self._outer is None:
            self._sum, self._square = torch.zeros_like(wide[0]), torch.zeros_like(wide[0])
            self._outer = wide.new_zeros(wide.shape[1], wide.shape[1])
        self._count += len(maps)
        self._sum += wide.sum(0)
        self._square += wide.square().sum(0)
        flat = wide.transpose(0, 1).flatten(1)
        self._outer += flat @ flat.T

    def finish(self, location_smoothing: float = 2.0) -> NormalStatistics:
        """Distributions of what was added.

        Args:
            location_smoothing: Gaussian sigma over places; lends each place the images of its neighbours.
        Raises:
            CalibrationError: fewer than two images.
        """
        if self._count < 2 or self._sum is None or self._square is None or self._outer is None:
            raise CalibrationError(f"novelty needs at least 2 normal images, got {self._count}")
        places = self._sum[0].numel()
        mean = smooth((self._sum / self._count)[None], location_smoothing)[0]
        square = smooth((self._square / self._count)[None], location_smoothing)[0]
        centre = self._sum.mean(dim=(1, 2)) / self._count
        covariance = self._outer / (self._count * places) - torch.outer(centre, centre)
        flat_mean = (self._sum / self._count).flatten(1)
        between = flat_mean @ flat_mean.T / places - torch.outer(centre, centre)
        variance = covariance.diagonal().clamp_min(1e-12)
        spread = (square - mean.square()).clamp_min(0.05 * variance[:, None, None]).sqrt()
        return NormalStatistics(
            mean=mean.float(),
            spread=spread.float(),
            centre=centre.float(),
            scale=variance.sqrt().float(),
            precision=_inverse(covariance).float(),
            located_precision=_inverse(covariance - between).float(),
        )


def _inverse(covariance: Tensor, ridge: float = 1e-3) -> Tensor:
    """Inverse with a small ridge relative to each statistic's own variance."""
    inverse: Tensor = torch.linalg.inv(covariance + ridge * torch.diag(covariance.diagonal().clamp_min(1e-9)))
    return inverse


def deviation(
    maps: Tensor, names: Sequence[str], normal: NormalStatistics, statistic: str, located: bool, side: str
) -> Tensor:
    """Novelty map: deviation of a statistic from normal, in standard deviations.

    Args:
        maps: (N, S, H, W) smoothed statistics, in the order of ``names``.
        names: of the S statistics.
        normal: their distribution over normal images.
        statistic: one of ``names``, or ``joint``: Mahalanobis distance over all of them.
        located: against the same place rather than anywhere.
        side: ``high``, ``low`` or ``both``.
    Returns:
        (N, H, W).
    """
    if statistic == JOINT:
        centred = maps - (normal.mean if located else normal.centre[:, None, None])
        precision = normal.located_precision if located else normal.precision
        squared = torch.einsum("nshw,st,nthw->nhw", centred, precision, centred)
        return squared.clamp_min(0).sqrt()
    return _scaled(maps, names, normal, [statistic], located, side)[:, 0]


def _scaled(
    maps: Tensor,
    names: Sequence[str],
    normal: NormalStatistics,
    statistics: Sequence[str],
    located: bool,
    side: str,
) -> Tensor:
    """(N, K, H, W) deviations of K of the statistics, each for itself."""
    at = [list(names).index(each) for each in statistics]
    if located:
        centre, scale = normal.mean[at], normal.spread[at]
    else:
        centre, scale = normal.centre[at, None, None], normal.scale[at, None, None]
    scaled = (maps[:, at] - centre) / scale
    return {"high": scaled, "low": -scaled, "both": scaled.abs()}[side]


def deviation_scores(
    maps: Tensor,
    names: Sequence[str],
    normal: Mapping[float, NormalStatistics],
    candidates: Sequence[Candidate],
) -> Tensor:
    """Image scores by many candidates of one target, sharing the work of those that look alike.

    Args:
        maps: (N, S, H, W) statistics before smoothing, in the order of ``names``.
        names: of the S statistics.
        normal: their distribution over normal images, per smoothing.
        candidates: K of the explained target.
    Returns:
        (N, K).
    """
    if not candidates:
        return maps.new_empty(len(maps), 0)
    alike: dict[_Alike, list[int]] = defaultdict(list)
    for at, each in enumerate(candidates):
        alike[_Alike.of(each)].append(at)
    smoothed = {sigma: smooth(maps, sigma) for sigma in dict.fromkeys(each.smoothing for each in alike)}
    columns: list[Tensor] = []
    order: list[tuple[int, int]] = []
    for kind, places in alike.items():
        members = [candidates[at] for at in places]
        statistics = list(dict.fromkeys(each.statistic for each in members))
        shares = list(dict.fromkeys(each.top_share for each in members))
        deviating = kind.deviations(smoothed[kind.smoothing], names, normal[kind.smoothing], statistics)
        ends = extreme_means(deviating.flatten(0, 1), shares)
        sides = torch.stack([end.reshape(len(maps), -1, len(shares)) for end in ends], dim=1)
        first = sum(each.shape[1] for each in columns)
        columns.append(sides.flatten(1))
        order += [
            (at, first + _place(each, statistics, shares)) for at, each in zip(places, members, strict=True)
        ]
    return torch.cat(columns, dim=1)[:, [place for _, place in sorted(order)]]


def _place(candidate: Candidate, statistics: list[str], shares: list[float]) -> int:
    """Of a candidate's score among those of both ends of all statistics by all shares."""
    end = int(candidate.side == "low")
    row = end * len(statistics) + statistics.index(candidate.statistic)
    return row * len(shares) + shares.index(candidate.top_share)


@dataclass(frozen=True)
class _Alike:
    """What candidates have in common whose maps are made, and sorted, together."""

    smoothing: float
    located: bool
    side: str
    joint: bool

    @classmethod
    def of(cls, candidate: Candidate) -> "_Alike":
        # Both ends of one map are read at once: what is low there is high in the map of the other side.
        side = "high" if candidate.side == "low" else candidate.side
        return cls(candidate.smoothing, candidate.located, side, candidate.statistic == JOINT)

    def deviations(
        self, maps: Tensor, names: Sequence[str], normal: NormalStatistics, statistics: Sequence[str]
    ) -> Tensor:
        """(N, K, H, W) of smoothed (N, S, H, W) statistics."""
        if self.joint:
            return deviation(maps, names, normal, JOINT, self.located, self.side)[:, None]
        return _scaled(maps, names, normal, statistics, self.located, self.side)
