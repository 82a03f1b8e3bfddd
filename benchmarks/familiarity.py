"""Familiarity of a folder of images: features once, figures of any bank over them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.inputs import read
from novad.config.settings import MemoryBankSettings
from novad.evaluation.metrics import fnr_at_fpr, image_auroc
from novad.vision.backbones import Backbone
from novad.vision.familiarity import familiarity_scores, feature_grids
from novad.vision.memory_bank import MemoryBank
from novad.vision.preprocess import batches, to_batch

__all__ = ["AUROC", "MISSED", "familiarity_figures", "patch_grids"]

AUROC, MISSED = "AUROC", "missed at 5 % FPR"


def patch_grids(backbone: Backbone, files: Sequence[Path], size: int) -> list[Tensor]:
    """(C, h, w) patch features of every file, in half precision: all are kept for several banks."""
    with torch.inference_mode():
        return [
            grid.half()
            for group in batches(map(read, files), 8)
            for grid in feature_grids(backbone(to_batch(group, size)), "sensory")
        ]


def familiarity_figures(
    bank: MemoryBank, grids: Sequence[Tensor], labels: NDArray[np.int64]
) -> dict[str, float | None]:
    """AUROC and miss rate of familiarity by a line's default settings.

    Args:
        bank: of normals.
        grids: of the images that are judged.
        labels: of these, 1 for anomalous.
    """
    told = MemoryBankSettings()
    scored = [
        familiarity_scores(bank, each[None].float(), told.neighbours, told.top_share, told.smoothing).scores
        for each in grids
    ]
    scores = np.concatenate(scored).astype(np.float64)
    return {AUROC: image_auroc(scores, labels), MISSED: fnr_at_fpr(scores, labels, 0.05)}
