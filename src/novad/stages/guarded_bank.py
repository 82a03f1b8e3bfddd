"""The memory bank that a line's settings ask for, guarded against defects among its normals."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from novad.config import MemoryBankSettings
from novad.vision.memory_bank import build_bank
from novad.vision.patch_store import store_patches
from novad.vision.suspicion import GuardedBank, guarded

__all__ = ["fit_bank"]


def fit_bank(
    grids: Iterable[Tensor], images: int, settings: MemoryBankSettings, seed: int = 0
) -> GuardedBank:
    """Build the bank, rank its images, and leave out the share of them that the settings say.

    Args:
        grids: one (C, H, W) tensor of patch features per image; read once.
        images: how many the stream will give.
        settings: of the line.
        seed: of the coreset's first centre.
    Raises:
        CalibrationError: no image, or features that are not finite.
    """
    build = partial(
        build_bank,
        coreset_share=settings.coreset_share,
        min_vectors=settings.min_vectors,
        max_vectors=settings.max_vectors,
        dimensions=settings.dimensions,
        whiten=settings.whiten,
        seed=seed,
    )
    with torch.inference_mode():
        store = store_patches(grids, images, settings.max_patches)
        return guarded(store, build, settings.exclude_suspicious, settings.top_share, settings.smoothing)
