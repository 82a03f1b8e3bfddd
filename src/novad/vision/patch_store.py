"""Normal patches as they stream in: a bounded share of them, and the whitening that all of them ask for."""

from collections.abc import Collection, Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.errors import CalibrationError

__all__ = ["PatchStore", "Whitening", "store_patches"]

# Patches whitened at once: in single precision all of them would take too much memory.
BLOCK = 16_384


@dataclass(frozen=True)
class Whitening:
    """Linear map that gives normal patches zero mean and their principal directions more equal variances.

    Attributes:
        mean: (C,) of normal patches.
        matrix: (C, D), D at most C; columns are scaled principal directions.
    """

    mean: Tensor
    matrix: Tensor

    def __call__(self, patches: Tensor) -> Tensor:
        """(..., C) patches to (..., D) float32."""
        return (patches.float() - self.mean) @ self.matrix


class PatchStore:
    """Normal patches as they stream in: a bounded, evenly spread share of them in half precision.

    Sums for mean and covariance run over every patch; the kept ones are every ``step``-th position of each
    image, shifted from image to image, so that the memory is bounded whatever the number of images: buffers
    made once, not a piece per image.

    Args:
        images: how many will come, at most.
        shape: h, w of an image's patches.
        max_patches: most patches kept.
    """

    def __init__(self, images: int, shape: tuple[int, int], max_patches: int) -> None:
        self.shape, self.positions = shape, shape[0] * shape[1]
        self.step = max(1, -(-images * self.positions // max_patches))
        kept = np.maximum(0, -(-(self.positions - np.arange(images) % self.step) // self.step))
        self._origins = np.empty((int(kept.sum()), 3), np.int32)
        self._kept: Tensor | None = None
        self._ends = [0]
        self._count = 0
        self._sum: Tensor | None = None
        self._outer: Tensor | None = None

    def add(self, image: int, grid: Tensor) -> None:
        """Take the (C, H, W) patches of the next image.

        Raises:
            CalibrationError: features that are not finite, or more images than were told.
        """
        flat = grid.reshape(len(grid), -1).T.contiguous()
        if not torch.isfinite(flat).all():
            raise CalibrationError(f"image {image}: its features are not finite")
        if self._kept is None:
            self._kept = torch.empty(len(self._origins), flat.shape[1], dtype=torch.float16)
        places = torch.arange(len(flat))[image % self.step :: self.step]
        into = slice(self._ends[-1], self._ends[-1] + len(places))
        if into.stop > len(self._kept):
            raise CalibrationError(f"image {image}: the memory bank was told of fewer images or patches")
        self._count_in(flat)
        self._kept[into] = flat[places].half()
        self._origins[into, 0] = image
        self._origins[into, 1:] = np.stack(np.divmod(places.numpy(), self.shape[1]), 1)
        self._ends.append(into.stop)

    def without(self, images: Collection[int]) -> "PatchStore":
        """The store of the other images, numbered anew in their order.

        Its sums run over what was kept of them: the patches that were only counted are gone.
        """
        other = copy(self)
        stay = np.array([image for image in range(len(self)) if image not in images], np.int64)
        rows = np.isin(self.origins()[:, 0], stay)
        other._origins = self.origins()[rows]
        other._origins[:, 0] = np.searchsorted(stay, other._origins[:, 0])
        other._ends = [0, *np.diff(self._ends)[stay].cumsum().tolist()]
        other._count, other._sum, other._outer = 0, None, None
        if self._kept is not None:
            other._kept = self._kept[: self._ends[-1]][torch.from_numpy(rows)]
            for patches, _ in other:
                other._count_in(patches.float())
        return other

    def __len__(self) -> int:
        """Images that came."""
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[tuple[Tensor, NDArray[np.int32]]]:
        """Kept patches (n, C) of each image, half precision, and their places (n, 2)."""
        for start, stop in pairwise(self._ends):
            yield self._patches()[start:stop], self._origins[start:stop, 1:]

    def whitened(self, whitening: Whitening) -> Tensor:
        """(n, D) kept patches of all images, half precision."""
        patches = self._patches()
        mapped = torch.empty(len(patches), whitening.matrix.shape[1], dtype=torch.float16)
        for start in range(0, len(patches), BLOCK):
            mapped[start : start + BLOCK] = whitening(patches[start : start + BLOCK])
        return mapped

    def origins(self) -> NDArray[np.int32]:
        """(n, 3): image, row and column of each kept patch."""
        return self._origins[: self._ends[-1]]

    def _patches(self) -> Tensor:
        if self._kept is None:
            raise CalibrationError("no normal image to build a memory bank from")
        return self._kept[: self._ends[-1]]

    def whitening(self, dimensions: int, whiten: float, shrinkage: float = 0.01) -> Whitening:
        """Principal directions of all patches seen, their variances v brought to v^(1 - whiten).

        Args:
            dimensions: leading directions kept; 0 keeps all.
            whiten: 1 gives unit variance; with 0 distances stay those of the features (up to dropped
                directions). Half-way is best on most lines (docs/research/familiarity.md).
            shrinkage: share of the mean variance added to each, so that noise directions are not blown up.
        Raises:
            CalibrationError: no patch was added.
        """
        if self._sum is None or self._outer is None:
            raise CalibrationError("no normal image to build a memory bank from")
        mean = self._sum / self._count
        covariance = self._outer / self._count - torch.outer(mean, mean)
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        signs = torch.sign(vectors[vectors.abs().argmax(0), torch.arange(len(values))])
        vectors = vectors * signs
        keep = dimensions or len(values)
        scale = (values + shrinkage * values.mean() + 1e-12).pow(-whiten / 2)
        return Whitening(mean.float(), (vectors * scale)[:, :keep].float().contiguous())

    def _count_in(self, patches: Tensor) -> None:
        """Add (n, C) patches to the sums."""
        channels = patches.shape[1]
        if self._sum is None or self._outer is None:
            self._sum = torch.zeros(channels, dtype=torch.float64)
            self._outer = torch.zeros(channels, channels, dtype=torch.float64)
        self._count += len(patches)
        self._sum += patches.sum(0, dtype=torch.float64)
        self._outer += (patches.T @ patches).double()


def store_patches(grids: Iterable[Tensor], images: int, max_patches: int) -> PatchStore:
    """Store a stream of normal images.

    Args:
        grids: one (C, H, W) tensor of patch features per image.
        images: how many the stream will give.
        max_patches: most patches kept.
    Raises:
        CalibrationError: no image, or features that are not finite.
    """
    store: PatchStore | None = None
    for number, grid in enumerate(grids):
        if store is None:
            store = PatchStore(images, (grid.shape[1], grid.shape[2]), max_patches)
        store.add(number, grid)
    if store is None:
        raise CalibrationError("no normal image to build a memory bank from")
    return store
