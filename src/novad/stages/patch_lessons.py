"""Maps learned from masked anomalies of the tuning split, and what they show of defects not learned from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from operator import add

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from novad.stages.masked_images import COVERED, MaskedImages
from novad.vision.patch_evidence import PatchEvidence, blurred, fit_discriminant, patch_signs
from novad.vision.preprocess import images_at_once

__all__ = ["LearnedMap", "learn_maps"]

RIDGES = (0.03, 0.3, 3.0)
FOLDS = 5
# Sound positions of one image that teach, evenly spread; finer grids have many alike.
MOST_SOUND = 8192

Places = tuple[int, ...]
Look = Callable[[Tensor], Tensor]


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


def learn_maps(look: Look, masked: MaskedImages, normal: Tensor, fewest: int) -> list[LearnedMap]:
    """Learn a map with every ridge; none from fewer than ``fewest`` defects that cover a patch.

    Args:
        look: deviations (N, C, h, w) of the patches of images, see ``patch_deviations``.
        masked: defects whose place is known.
        normal: (n, 3, S, S) sound images of the tuning split; there may be none.
        fewest: 0 learns nothing.
    """
    lessons = _Lessons(look, masked, normal)
    if not fewest or lessons.defective.flatten(1).any(1).sum() < fewest or not lessons.partitions:
        return []
    lessons.measure()
    return lessons.learned()


class _Lessons:
    """Sums over positions: once gathered, to leave images out costs nothing."""

    def __init__(self, look: Look, masked: MaskedImages, normal: Tensor) -> None:
        self.look, self.masked, self.normal = look, masked, normal
        height, width = look(masked.images[:1]).shape[-2:]
        cover = F.adaptive_avg_pool2d(masked.masks.float()[:, None], (height, width))[:, 0]
        self.defective, self.sound = cover >= COVERED, cover == 0
        self.partitions = [part for part in self._partitions() if all(map(self._teach, part.values()))]

    def measure(self) -> None:
        """Mean and spread of the deviations of sound patches first, then sums of products of the signs."""
        sums = (_products(deviations, sound) for deviations, _, sound in self._teachers())
        moments = reduce(add, sums)
        moments = moments / moments[-1, -1]
        centre = moments[-1, :-1]
        self.centre = centre.float()
        self.scale = (moments.diagonal()[:-1] - centre.square()).clamp_min(1e-12).sqrt().float()
        products = []
        for deviations, defective, sound in self._teachers():
            signs = blurred(patch_signs(deviations[None], self.centre, self.scale))[0]
            products.append(torch.stack([_products(signs, defective), _products(signs, _thinned(sound))]))
        count = len(self.masked.images)
        self.products = torch.stack(products[:count])
        self.usual = torch.stack([*products[count:], torch.zeros_like(products[0])]).sum(0)

    def learned(self) -> list[LearnedMap]:
        """From all images, and the maps of each by what others teach; with every ridge."""
        held_out = {
            ridge: [
                {at: self._fit(rest, ridge) for out, rest in part.items() for at in out}
                for part in self.partitions
            ]
            for ridge in RIDGES
        }
        maps: dict[float, list[list[Tensor]]] = {ridge: [[] for _ in self.partitions] for ridge in RIDGES}
        for at, deviations in enumerate(_one_by_one(self.look, self.masked.images)):
            for ridge, readings in held_out.items():
                for reading, shown in zip(readings, maps[ridge], strict=True):
                    shown.append(reading[at](deviations[None]))
        everything = tuple(range(len(self.products)))
        return [
            LearnedMap(ridge, self._fit(everything, ridge), torch.cat(list(chain(*maps[ridge]))))
            for ridge in RIDGES
        ]

    def _fit(self, images: Places, ridge: float) -> PatchEvidence:
        bad, good = self.products[list(images)].sum(0) + self.usual
        return PatchEvidence(self.centre, self.scale, fit_discriminant(bad, good, ridge))

    def _partitions(self) -> Iterator[dict[Places, Places]]:
        """Images held out and those that then teach: by fifths, and by defect types."""
        folds = np.random.default_rng(0).permutation(len(self.masked.kinds)) % FOLDS
        for turn in (folds, np.array(self.masked.kinds)):
            yield {
                tuple(np.flatnonzero(turn == each).tolist()): tuple(np.flatnonzero(turn != each).tolist())
                for each in np.unique(turn)
            }

    def _teach(self, images: Places) -> bool:
        """Whether there are defective places in these images, and sound ones in them or in normals."""
        at = list(images)
        return bool(self.defective[at].any() and (len(self.normal) or self.sound[at].any()))

    def _teachers(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(C, h, w) deviations of every image, masked ones first; its defective and its sound places."""
        yield from zip(_one_by_one(self.look, self.masked.images), self.defective, self.sound, strict=True)
        everywhere = torch.ones_like(self.sound[0])
        for deviations in _one_by_one(self.look, self.normal):
            yield deviations, ~everywhere, everywhere


def _one_by_one(look: Look, images: Tensor) -> Iterator[Tensor]:
    """(C, h, w) deviations of every image; few are held at a time."""
    for batch in torch.split(images, images_at_once(images.shape[-1])) if len(images) else ():
        yield from look(batch)


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
