"""Learned maps: masked anomalies say how much each deviation of a patch from its nearest normal one counts.

A ridge discriminant of positions in defects and sound ones (Fisher 1936, Hoerl and Kennard 1970), of the
deviations, bent, and their squares, each blurred a little and a lot. What labels taught may only add to the
map: a deviation that no labelled defect showed keeps the brightness that appearance gives it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from novad.errors import CalibrationError
from novad.vision.novelty import PATCHES, Candidate
from novad.vision.pooling import smooth

__all__ = [
    "BLURS",
    "LOOKS",
    "Discriminant",
    "PatchEvidence",
    "blurred",
    "fit_discriminant",
    "patch_candidate",
    "patch_deviations",
    "patch_signs",
]

BLURS = (0.0, 1.5, 4.0)
# Leading directions of the features whose residuals are read; so the discriminant stays small.
DIRECTIONS = 64
# Share of the map that appearance keeps, whatever labels teach (docs/research/maps.md).
UNTAUGHT = 0.2
# Channel of the novelty of appearance, after that of familiarity.
LOOKS = 1
_REACH = 4.0


@dataclass(frozen=True)
class Discriminant:
    """A linear reading of signs, in standard deviations of sound positions.

    Attributes:
        weight: (K,) of the signs.
        offset: mean of the reading over sound positions.
        spread: its standard deviation there.
    """

    weight: Tensor
    offset: float
    spread: float


@dataclass(frozen=True)
class PatchEvidence:
    """From deviations of patches to a novelty map.

    Attributes:
        centre: (C,) mean deviations of sound patches.
        scale: (C,) their standard deviations.
        discriminant: of 2 C signs at every blur.
    """

    centre: Tensor
    scale: Tensor
    discriminant: Discriminant

    def __call__(self, deviations: Tensor) -> Tensor:
        """(N, C, h, w) deviations to (N, h, w) maps, in standard deviations of sound patches."""
        signs, read = patch_signs(deviations, self.centre, self.scale), self.discriminant
        weights = read.weight.reshape(len(BLURS), -1)
        # A blur of a sum is the sum of blurs: one map per blur instead of one per sign.
        parts = torch.einsum("nkhw,bk->bnhw", signs, weights)
        blurs = [smooth(part[:, None], blur)[:, 0] for part, blur in zip(parts, BLURS, strict=True)]
        reading = torch.stack(blurs).sum(0)
        taught = (reading - read.offset) / read.spread
        looks = (deviations[:, LOOKS] - self.centre[LOOKS]) / self.scale[LOOKS]
        return UNTAUGHT * looks + (1 - UNTAUGHT) * taught.clamp_min(0)


def patch_candidate(top_share: float) -> Candidate:
    """The name of learned maps among the ways to ask for novelty."""
    return Candidate(PATCHES, "evidence", max(BLURS), located=False, side="high", top_share=top_share)


def patch_deviations(distances: Tensor, looks: Tensor, differences: Tensor, residuals: Tensor) -> Tensor:
    """All that a patch shows its nearest normal vector not to be.

    Args:
        distances: (N, h, w) familiarity.
        looks: (N, h, w) novelty of appearance.
        differences: (N, A, h, w) of what the patches look like.
        residuals: (N, h, w, D) of the features.
    Returns:
        (N, C, h, w).
    """
    named = torch.stack([distances, looks], dim=-1)
    parts = [named, differences.permute(0, 2, 3, 1), residuals[..., :DIRECTIONS]]
    return torch.cat(parts, dim=-1).permute(0, 3, 1, 2)


def patch_signs(deviations: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    """(N, 2 C, h, w) of (N, C, h, w): standard deviations, bent so that none is wild, and their squares."""
    # Deviations come channel by channel at each place; taken in that order this takes half the time.
    placed = deviations.permute(0, 2, 3, 1)
    bent = _REACH * torch.tanh((placed - centre) / (_REACH * scale))
    return torch.cat([bent, bent.square()], dim=-1).permute(0, 3, 1, 2)


def blurred(signs: Tensor) -> Tensor:
    """(N, K, h, w) signs at every blur: (N, len(BLURS) K, h, w), in the order of ``Discriminant.weight``."""
    return torch.cat([smooth(signs, blur) for blur in BLURS], dim=1)


def fit_discriminant(defective: Tensor, sound: Tensor, ridge: float) -> Discriminant:
    """Least squares to +1 in defects and -1 elsewhere, both classes counting alike.

    Args:
        defective: (K + 1, K + 1) sum of the outer products of signs at defective positions, 1 appended.
        sound: the same of sound positions.
        ridge: penalty on squared weights.
    Raises:
        CalibrationError: one of the classes is empty.
    """
    counts = float(defective[-1, -1]), float(sound[-1, -1])
    if min(counts) <= 0:
        raise CalibrationError("a map is learned from at least one defective and one sound position")
    bad, good = defective.double() / counts[0], sound.double() / counts[1]
    penalty = torch.full((len(good),), ridge, dtype=torch.float64)
    penalty[-1] = 0.0
    weight = torch.linalg.solve(bad + good + torch.diag(penalty), bad[-1] - good[-1])[:-1]
    mean = good[-1, :-1]
    variance = weight @ (good[:-1, :-1] - torch.outer(mean, mean)) @ weight
    return Discriminant(weight.float(), float(weight @ mean), float(variance.clamp_min(1e-12).sqrt()))
