"""Pixel figures by anomalib and torchmetrics: ``python anomalib_figures.py MAPS.npz FIGURES.json``.

Run by an interpreter that has them; imports nothing of novad.
The archive holds ``maps`` (N, H, W) float32 and ``masks`` (N, H, W) bool; a normal image has an empty mask.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.pimo.functional import aupimo_scores
from torchmetrics.functional.classification import binary_auroc

THRESHOLDS = 300_000  # anomalib's default


def main(archive: str, told: str) -> None:
    """Read the maps, write the three figures."""
    with np.load(archive) as content:
        maps, masks = torch.from_numpy(content["maps"]), torch.from_numpy(content["masks"])
    regions = _AUPRO()
    regions.update(maps, masks.int())
    *_, classes, scores, _ = aupimo_scores(maps, masks.int(), THRESHOLDS, force=True)
    figures = {
        "pixel_auroc": float(binary_auroc(maps.flatten(), masks.flatten().int())),
        "aupro": float(regions.compute()),
        "aupimo": float(scores[classes == 1].mean()),
    }
    Path(told).write_text(json.dumps(figures), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
