"""Suspicion: which images of the memory bank look like defects to all the others."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.vision.memory_bank import MemoryBank
from novad.vision.patch_store import PatchStore
from novad.vision.pooling import smooth, top_means

__all__ = ["GuardedBank", "Suspicions", "guarded", "suspicions"]


@dataclass(frozen=True)
class Suspicions:
    """How far each of n bank images lies from the other images' vectors.

    Attributes:
        distances: (n,) familiarity score against the bank without the image's own vectors, in feature units.
        scores: (n,) robust z of the distances: deviations from their median, in units of their scaled MAD.
        places: (n, 2) row and column of the least familiar patch.
        nearest: (n,) other image whose vector is nearest to that patch; the image itself where the bank
            holds no vector of another one, or none of its patches was kept (its distance is then 0: nothing
            speaks against it).
        shape: h, w of an image's patches.
    """

    distances: NDArray[np.float64]
    scores: NDArray[np.float64]
    places: NDArray[np.int64]
    nearest: NDArray[np.int64]
    shape: tuple[int, int]

    def ranking(self) -> NDArray[np.int64]:
        """Images, the most suspicious first; ties in the bank's order."""
        return np.argsort(-self.scores, kind="stable")

    def most(self, share: float) -> NDArray[np.int64]:
        """The most suspicious ``share`` of the images, rounded down, in the bank's order."""
        return np.sort(self.ranking()[: int(share * len(self.scores))])


@dataclass(frozen=True)
class GuardedBank:
    """A bank, and how suspicious the images are that it was to be built from.

    Attributes:
        bank: of the images that are left, numbered anew in their order.
        suspicions: of all n images, against the bank of all.
        excluded: (m,) images that were left out, in their order.
    """

    bank: MemoryBank
    suspicions: Suspicions
    excluded: NDArray[np.int64]


def suspicions(bank: MemoryBank, store: PatchStore, top_share: float, smoothing: float) -> Suspicions:
    """Score every image of the bank as if the bank had been built without it.

    Leaving out only the image's vectors (not its share in the whitening) needs no second coreset. The search
    is exact: an odd image owns many vectors, so its nearest foreign one may be far down the list. Patches
    that the store did not keep say nothing; smoothing and top share are those of the kept ones.

    Args:
        bank: built from ``store``.
        store: patches of the images.
        top_share: share of patches that the image score averages.
        smoothing: Gaussian sigma in patches.
    """
    owners = bank.origins[:, 0]
    found = [
        _left_out(bank, owners == image, patches, places, store.shape, top_share, smoothing)
        for image, (patches, places) in enumerate(store)
    ]
    distances = np.array([each[0] for each in found], dtype=np.float64)
    places = np.array([each[1] for each in found], dtype=np.int64)
    nearest = [image if each[2] is None else owners[each[2]] for image, each in enumerate(found)]
    return Suspicions(distances, _robust_z(distances), places, np.array(nearest, dtype=np.int64), store.shape)


def guarded(
    store: PatchStore,
    build: Callable[[PatchStore], MemoryBank],
    share: float,
    top_share: float,
    smoothing: float,
) -> GuardedBank:
    """Rank the images of a bank, and build it anew where some are to be left out.

    Args:
        store: patches of the images.
        build: gives the bank of a store.
        share: of the images, the most suspicious, that is left out; rounded down.
        top_share: see ``suspicions``.
        smoothing: see ``suspicions``.
    """
    bank = build(store)
    found = suspicions(bank, store, top_share, smoothing)
    excluded = found.most(share)
    if len(excluded):
        bank = build(store.without(excluded.tolist()))
    return GuardedBank(bank, found, excluded)


def _left_out(
    bank: MemoryBank,
    own: NDArray[np.bool_],
    patches: Tensor,
    places: NDArray[np.int32],
    shape: tuple[int, int],
    top_share: float,
    smoothing: float,
) -> tuple[float, NDArray[np.int32], int | None]:
    """Score and least familiar place of one image, and the position of the vector nearest to that place."""
    if not len(patches):
        return 0.0, np.zeros(2, np.int32), None
    if own.all():
        return 0.0, places[0], None
    nearest, at = bank.nearest_among(np.flatnonzero(~own), bank.whitening(patches))
    rows, columns = torch.from_numpy(places.astype(np.int64)).unbind(1)
    distances, kept = torch.zeros(2, 1, *shape)
    distances[0, rows, columns], kept[0, rows, columns] = nearest, 1.0
    if bank.usual is not None:
        distances = bank.usual(distances)
    # A place that was not kept has no distance: the blur leaves it out.
    blurred, weight = (smooth(each[None], smoothing) for each in (distances * kept, kept))
    smoothed = (blurred / weight)[0, 0, rows, columns]
    worst = int(smoothed.argmax())
    return float(top_means(smoothed[None, None], [top_share])[0, 0]), places[worst], int(at[worst])


def _robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median and MAD, which defects among the images hardly move; 1.4826 makes the MAD a normal sigma."""
    centred = values - np.median(values)
    return np.asarray(centred / (1.4826 * np.median(np.abs(centred)) + 1e-9))
