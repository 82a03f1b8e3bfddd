"""Normal patches as they stream in: a bounded share of them, and the whitening that all of them ask for."""

from collections.abc import Collection, Iterable, Iterator
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.errors import CalibrationError

__all__ = ["PatchStore", "Whitening", "store_patches"]


@dataclass(frozen=True)
class Whitening:
    """Linear map that gives normal patches zero mean and equal variance along their principal directions.

    Attributes:
        mean: (C,) of normal patches.
        matrix: (C, D), D at most C; columns are scaled principal directions.
    """

    mean: Tensor
    matrix: Tensor

    def __call__(self, patches: Tensor) -> Tensor:
        """(n, C) patches to (n, D) float32."""
        return (patches.float() - self.mean) @ self.matrix


class PatchStore:
    """Normal patches as they stream in: a bounded, evenly spread share of them in half precision.

    Sums for mean and covariance run over every patch; the kept ones are every ``step``-th position of each
    image, shifted from image to image, so that the memory is bounded whatever the number of images.

    Args:
        images: how many will come.
        shape: h, w of an image's patches.
        max_patches: most patches kept.
    """

    def __init__(self, images: int, shape: tuple[int, int], max_patches: int) -> None:
        self.shape, self.positions = shape, shape[0] * shape[1]
        self.step = max(1, -(-images * self.positions // max_patches))
        self._kept: list[Tensor] = []
        self._places: list[NDArray[np.int32]] = []
        self._count = 0
        self._sum: Tensor | None = None
        self._outer: Tensor | None = None

    def add(self, image: int, grid: Tensor) -> None:
        """Take the (C, H, W) patches of one image."""
        flat = grid.reshape(len(grid), -1).T.contiguous()
        if not torch.isfinite(flat).all():
            raise CalibrationError(f"image {image}: its features are not finite")
        self._count_in(flat)
        places = torch.arange(image % self.step, len(flat), self.step)
        self._kept.append(flat[places].half())
        self._places.append(np.stack(np.divmod(places.numpy(), self.shape[1]), 1).astype(np.int32))

    def without(self, images: Collection[int]) -> "PatchStore":
        """The store of the other images, numbered anew in their order.

        Its sums run over what was kept of them: the patches that were only counted are gone.
        """
        other = copy(self)
        stay = [image for image in range(len(self)) if image not in images]
        other._kept, other._places = [self._kept[at] for at in stay], [self._places[at] for at in stay]
        other._count, other._sum, other._outer = 0, None, None
        for patches in other._kept:
            other._count_in(patches.float())
        return other

    def __len__(self) -> int:
        """Images that came."""
        return len(self._kept)

    def __iter__(self) -> Iterator[tuple[Tensor, NDArray[np.int32]]]:
        """Kept patches (n, C) of each image, half precision, and their places (n, 2)."""
        return zip(self._kept, self._places, strict=True)

    def whitened(self, whitening: Whitening) -> Tensor:
        """(n, D) kept patches of all images, half precision."""
        return torch.cat([whitening(patches).half() for patches in self._kept])

    def origins(self) -> NDArray[np.int32]:
        """(n, 3): image, row and column of each kept patch."""
        images = np.repeat(np.arange(len(self), dtype=np.int32), [len(each) for each in self._places])
        return np.column_stack([images, np.concatenate(self._places)])

    def whitening(self, dimensions: int, whiten: bool, shrinkage: float = 0.01) -> Whitening:
        """Principal directions of all patches seen, scaled to unit variance when ``whiten``.

        Args:
            dimensions: leading directions kept; 0 keeps all.
            whiten: scale them; otherwise distances stay those of the features (up to dropped directions).
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
        scale = (values + shrinkage * values.mean() + 1e-12).rsqrt() if whiten else torch.ones_like(values)
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
