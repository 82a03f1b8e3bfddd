"""Normal patches as they stream in, and the whitening that is fitted to them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.errors import CalibrationError

__all__ = ["PatchStore", "Whitening"]


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
    image, shifted from image to image, so that the memory is bounded whatever the number of images: buffers
    made once, not a piece per image.

    Args:
        images: how many will come, at most.
        positions: patches per image.
        max_patches: most patches kept.
    """

    def __init__(self, images: int, positions: int, max_patches: int) -> None:
        self.step = max(1, -(-images * positions // max_patches))
        first = np.arange(images) % self.step
        self._room = int(np.maximum(0, -(-(positions - first) // self.step)).sum())
        self._origin = np.empty((self._room, 3), np.int32)
        self._kept: Tensor | None = None
        self._filled = self._count = 0
        self._sum: Tensor | None = None
        self._outer: Tensor | None = None

    def add(self, image: int, grid: Tensor) -> None:
        """Take the (C, H, W) patches of one image."""
        channels, _, width = grid.shape
        flat = grid.reshape(channels, -1).T.contiguous()
        if not torch.isfinite(flat).all():
            raise CalibrationError(f"image {image}: its features are not finite")
        if self._sum is None or self._outer is None or self._kept is None:
            self._kept = torch.empty(self._room, channels, dtype=torch.float16)
            self._sum = torch.zeros(channels, dtype=torch.float64)
            self._outer = torch.zeros(channels, channels, dtype=torch.float64)
        self._count += len(flat)
        self._sum += flat.sum(0, dtype=torch.float64)
        self._outer += (flat.T @ flat).double()
        places = torch.arange(image % self.step, len(flat), self.step)
        kept = slice(self._filled, self._filled + len(places))
        if kept.stop > self._room:
            raise CalibrationError(f"image {image}: the memory bank was told of fewer images or patches")
        self._kept[kept] = flat[places]
        self._origin[kept, 0] = image
        self._origin[kept, 1:] = torch.stack([places // width, places % width], 1).numpy()
        self._filled = kept.stop

    def patches(self) -> Tensor:
        """Kept patches (n, C), half precision; the store lets go of them."""
        if self._kept is None:
            raise CalibrationError("no normal image to build a memory bank from")
        kept, self._kept = self._kept[: self._filled], None
        return kept

    def origins(self) -> NDArray[np.int32]:
        """(n, 3): image, row and column of each kept patch."""
        return self._origin[: self._filled]

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
