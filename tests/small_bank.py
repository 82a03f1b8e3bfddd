"""A memory bank of a few images, for tests that ask it."""

from torch import Tensor

from novad.vision.memory_bank import MemoryBank, fit_memory_bank


def small_bank(
    grids: Tensor, *, share: float, least: int, dimensions: int = 16, whiten: float = 1.0
) -> MemoryBank:
    """Of (N, C, h, w) features: that share of their patches, at least so many, at most 500."""
    return fit_memory_bank(
        iter(grids),
        len(grids),
        coreset_share=share,
        min_vectors=least,
        max_vectors=500,
        dimensions=dimensions,
        whiten=whiten,
    )
