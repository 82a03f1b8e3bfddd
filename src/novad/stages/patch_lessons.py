"""Maps learned from masked anomalies of the tuning split, and what they show of defects not learned from."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from novad.stages.masked_images import COVERED, MaskedImages
from novad.vision.patch_evidence import PatchEvidence, blurred, fit_discriminant, patch_signs

__all__ = ["LearnedMap", "learn_maps"]

RIDGES = (0.03, 0.3, 3.0)
FOLDS = 5
# Sound positions of one image that teach, evenly spread; finer grids have many alike.
MOST_SOUND = 8192

Places = tuple[int, ...]


@dataclass(frozen=True)
class LearnedMap:
    """One way to learn a map.

    Attributes:
        ridge: its penalty.
        evidence: learned from all masked images.
        maps: (N, h, w) of these by evidence learned from other images; where there are several defect types,
            then again by evidence learned from other types: (2 N, h, w).
    """

    ridge: float
    evidence: PatchEvidence
    maps: Tensor


def learn_maps(
    seen: Sequence[Tensor], masked: MaskedImages, normal: Iterable[Tensor], fewest: int
) -> list[LearnedMap]:
    """Learn a map with every ridge; none from fewer than ``fewest`` defects that cover a patch.

    Args:
        seen: (C, h, w) deviations of the patches of each masked image, see ``patch_deviations``; half
            precision will do.
        masked: defects whose place is known.
        normal: the same of sound images of the tuning split, asked for if there is something to learn; there
            may be none.
        fewest: 0 learns nothing.
    """
    height, width = seen[0].shape[-2:]
    cover = F.adaptive_avg_pool2d(masked.masks.float()[:, None], (height, width))[:, 0]
    if not fewest or (cover >= COVERED).flatten(1).any(1).sum() < fewest:
        return []
    lessons = _Lessons(seen, cover, masked.kinds, masked.parts, list(normal))
    return lessons.learned() if lessons.partitions else []


class _Lessons:
    """Sums over positions: once gathered, to leave images out costs nothing.

    Args:
        masked: (C, h, w) deviations of each of the N masked images.
        cover: (N, h, w) share of each patch that the mask covers.
        kinds: N defect types.
        parts: N names of the parts that are shown.
        normal: deviations of sound images.
    """

    def __init__(
        self,
        masked: Sequence[Tensor],
        cover: Tensor,
        kinds: Sequence[str],
        parts: Sequence[str],
        normal: list[Tensor],
    ) -> None:
        self.masked, self.kinds, self.parts, self.normal = masked, kinds, parts, normal
        self.defective, self.sound = cover >= COVERED, cover == 0
        self.partitions = [part for part in self._partitions() if all(map(self._teach, part.values()))]

    def learned(self) -> list[LearnedMap]:
        """From all images, and the maps of each by what others teach; with every ridge."""
        self._measure()
        everything = tuple(range(len(self.masked)))
        return [
            LearnedMap(ridge, self._fit(everything, ridge), torch.cat(list(self._maps(ridge))))
            for ridge in RIDGES
        ]

    def _measure(self) -> None:
        """Mean and spread of the deviations of sound patches first, then sums of products of the signs."""
        everywhere = torch.ones_like(self.sound[0])
        places = [*self.sound, *(everywhere for _ in self.normal)]
        moments = reduce(add, map(_products, [*self.masked, *self.normal], places))
        moments = moments / moments[-1, -1]
        centre = moments[-1, :-1]
        self.centre = centre.float()
        self.scale = (moments.diagonal()[:-1] - centre.square()).clamp_min(1e-12).sqrt().float()
        self.products = torch.stack(
            [
                torch.stack([_products(signs, defective), _products(signs, _thinned(sound))])
                for signs, defective, sound in zip(
                    map(self._signs, self.masked), self.defective, self.sound, strict=True
                )
            ]
        )
        self.usual = torch.zeros_like(self.products[0, 0])
        for deviations in self.normal:
            self.usual += _products(self._signs(deviations), _thinned(everywhere))

    def _signs(self, deviations: Tensor) -> Tensor:
        """(K, h, w) of (C, h, w), at all blurs."""
        return blurred(patch_signs(deviations[None].float(), self.centre, self.scale))[0]

    def _maps(self, ridge: float) -> Iterator[Tensor]:
        """(N, h, w) of the masked images, each by evidence of images held apart; once per partition."""
        for part in self.partitions:
            maps = {
                at: evidence(self.masked[at][None].float())
                for out, evidence in ((out, self._fit(rest, ridge)) for out, rest in part.items())
                for at in out
            }
            yield torch.cat([maps[at] for at in range(len(self.masked))])

    def _fit(self, images: Places, ridge: float) -> PatchEvidence:
        bad, good = self.products[list(images)].sum(0)
        return PatchEvidence(self.centre, self.scale, fit_discriminant(bad, good + self.usual, ridge))

    def _partitions(self) -> Iterator[dict[Places, Places]]:
        """Images held out and those that then teach: by fifths of whole parts, and by defect types."""
        folds = np.random.default_rng(0).permutation(len(self.kinds)) % FOLDS
        _, first, part = np.unique(self.parts, return_index=True, return_inverse=True)
        for turn in (folds[first[part]], np.array(self.kinds)):
            yield {
                tuple(np.flatnonzero(turn == each).tolist()): tuple(np.flatnonzero(turn != each).tolist())
                for each in np.unique(turn)
            }

    def _teach(self, images: Places) -> bool:
        """Whether there are defective places in these images, and sound ones in them or in normals."""
        at = list(images)
        return bool(self.defective[at].any() and (len(self.normal) or self.sound[at].any()))


def _products(signs: Tensor, places: Tensor) -> Tensor:
    """(K + 1, K + 1) sum of outer products of (K, h, w) signs, 1 appended, over some places."""
    seen = signs[:, places].double()
    seen = torch.cat([seen, torch.ones_like(seen[:1])])
    return seen @ seen.T


def _thinned(places: Tensor) -> Tensor:
    """At most so many of the (h, w) places, evenly spread."""
    found = places.flatten().nonzero()[:, 0]
    kept = torch.zeros_like(places).flatten()
    kept[found[:: max(1, -(-len(found) // MOST_SOUND))]] = True
    return kept.reshape(places.shape)
