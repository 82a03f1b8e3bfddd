"""Learned novelty: labelled anomalies say how much each deviation of one explanation counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from novad.vision.novelty import JOINT, Candidate

__all__ = ["Evidence", "evidence_candidates", "squashed"]

_REACH = 4.0


@dataclass(frozen=True)
class Evidence:
    """A linear reading of K deviations of one explanation, in standard deviations of normal images.

    Attributes:
        centre: (K,) median deviation of normal images.
        scale: (K,) spread of their upper half.
        weight: (K,) of the squashed deviations; negative ones speak for a normal image.
        offset: value of the weighted sum at the median calibration normal.
        spread: of the weighted sum over calibration normals.
    """

    centre: Tensor
    scale: Tensor
    weight: Tensor
    offset: float
    spread: float

    def __call__(self, deviations: Tensor) -> Tensor:
        """(N, K) deviations to (N,) scores."""
        reading = squashed(deviations, self.centre, self.scale).double() @ self.weight.double()
        return ((reading - self.offset) / self.spread).float()


def squashed(deviations: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """Robust z of (N, K) deviations, bent so that one wild statistic cannot outvote the others."""
    return _REACH * torch.tanh((deviations - centre) / (_REACH * scale))


def evidence_candidates(candidates: Sequence[Candidate]) -> list[int]:
    """Positions of the candidates that evidence weighs.

    Both sides of every single statistic, each for itself; ``both`` and the joint distance are made of them.
    """
    return [at for at, each in enumerate(candidates) if each.statistic != JOINT and each.side != "both"]
