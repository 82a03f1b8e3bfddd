"""Suspicion: which images of the memory bank look like defects to all the others."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.vision.memory_bank import MemoryBank
from novad.vision.pooling import smooth, top_means

__all__ = ["Suspicions", "suspicions"]


@dataclass(frozen=True)
class Suspicions:
    """How far each of n bank images lies from the other images' vectors.

    Attributes:
        distances: (n,) familiarity score against the bank without the image's own vectors, in feature units.
        scores: (n,) robust z of the distances: deviations from their median, in units of their scaled MAD.
        places: (n, 2) row and column of the least familiar patch.
        nearest: (n,) other image whose vector is nearest to that patch; the image itself where the bank
            holds no vector of another one (its distance is then 0: nothing speaks against it).
    """

    distances: NDArray[np.float64]
    scores: NDArray[np.float64]
    places: NDArray[np.int64]
    nearest: NDArray[np.int64]

    def ranking(self) -> NDArray[np.int64]:
        """Images, the most suspicious first; ties in the bank's order."""
        return np.argsort(-self.scores, kind="stable")

    def most(self, share: float) -> NDArray[np.int64]:
        """The most suspicious ``share`` of the images, rounded down, in the bank's order."""
        return np.sort(self.ranking()[: int(share * len(self.scores))])


def suspicions(bank: MemoryBank, grids: Iterable[Tensor], top_share: float, smoothing: float) -> Suspicions:
    """Score every image of the bank as if the bank had been built without it.

    Leaving out only the image's vectors (not its share in the whitening) needs no second coreset. The search
    is exact: an odd image owns many vectors, so its nearest foreign one may be far down the list.

    Args:
        bank: built from these images.
        grids: one (C, H, W) tensor of patch features per image, in the bank's order.
        top_share: share of patches that the image score averages.
        smoothing: Gaussian sigma in patches.
    """
    owners = torch.from_numpy(bank.origins[:, 0].astype(np.int64))
    found = [_left_out(bank, owners, image, grid, top_share, smoothing) for image, grid in enumerate(grids)]
    distances = np.array([each[0] for each in found], dtype=np.float64)
    places = np.array([each[1] for each in found], dtype=np.int64)
    nearest = np.array([each[2] for each in found], dtype=np.int64)
    return Suspicions(distances, _robust_z(distances), places, nearest)


def _left_out(
    bank: MemoryBank, owners: Tensor, image: int, grid: Tensor, top_share: float, smoothing: float
) -> tuple[float, tuple[int, int], int]:
    channels, height, width = grid.shape
    others = torch.nonzero(owners != image)[:, 0]
    if not len(others):
        return 0.0, (0, 0), image
    patches = bank.whitening(grid.reshape(channels, -1).T)
    raw, at = torch.cdist(patches, bank.vectors[others]).min(dim=1)
    placed = raw.reshape(1, height, width)
    smoothed = smooth((placed if bank.usual is None else bank.usual(placed))[:, None], smoothing)[:, 0]
    worst = int(smoothed.argmax())
    return (
        float(top_means(smoothed, [top_share])[0, 0]),
        (worst // width, worst % width),
        int(owners[others[at[worst]]]),
    )


def _robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median and MAD, which defects among the images hardly move; 1.4826 makes the MAD a normal sigma."""
    centred = values - np.median(values)
    return np.asarray(centred / (1.4826 * np.median(np.abs(centred)) + 1e-9))
