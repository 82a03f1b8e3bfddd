"""Defects among the normals: does the guard find them, and does leaving them out mend the bank?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.familiarity import familiarity_figures, patch_grids
from benchmarks.inputs import Request, image_files, requested_backbone
from benchmarks.report import MissingInput, Report
from novad.config.settings import MemoryBankSettings
from novad.images import discover
from novad.stages.guarded_bank import fit_bank
from novad.vision.suspicion import GuardedBank

__all__ = ["measure"]

CONTAMINATION = 0.05
EXCLUDED = (0.05, 0.1)
SEEDS = (0, 1)
SETTINGS = MemoryBankSettings()


def measure(request: Request) -> Report:
    """Mix defects of the test folders into the training normals; the same ones leave the test.

    Raises:
        MissingInput: no images, or no defects among them.
    """
    train = image_files(request, request.images)
    tested = [each for each in discover(request.data, "mvtec") if each.source == "test"]
    labels = np.array([each.label for each in tested])
    if not labels.any():
        raise MissingInput(f"no defects in the test folders of {request.data}")
    backbone = requested_backbone(request)
    normals = patch_grids(backbone, train, request.size)
    test = patch_grids(backbone, [request.data / each.path for each in tested], request.size)
    rows = [row for seed in SEEDS for row in _rows(normals, test, labels, seed)]
    conditions = {
        "data": request.data.name,
        "normals": len(train),
        "contamination": CONTAMINATION,
        "layers": "+".join(backbone.layers),
        "size": request.size,
    }
    return Report("Contaminated bank: the guard and familiarity", conditions, rows)


def _rows(
    normals: Sequence[Tensor], test: Sequence[Tensor], labels: NDArray[np.int64], seed: int
) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    count = round(CONTAMINATION * len(normals) / (1 - CONTAMINATION))
    mixed = random.choice(np.flatnonzero(labels == 1), count, replace=False)
    left = np.setdiff1d(np.arange(len(test)), mixed)
    bank_images = [*normals, *(test[at] for at in mixed)]
    defect = np.arange(len(bank_images)) >= len(normals)
    dirty = _fitted(bank_images, 0.0)
    judged, truth = [test[at] for at in left], labels[left]
    clean = _fitted(normals, 0.0).bank
    rows = [
        {
            "seed": seed,
            "bank": "clean",
            **familiarity_figures(clean, judged, truth),
            **_guard(None, defect),
        },
        {
            "seed": seed,
            "bank": "dirty",
            **familiarity_figures(dirty.bank, judged, truth),
            **_guard(None, defect),
        },
    ]
    for share in EXCLUDED:
        told = _fitted(bank_images, share)
        rows.append(
            {
                "seed": seed,
                "bank": f"dirty, {share:.0%} excluded",
                **familiarity_figures(told.bank, judged, truth),
                **_guard(told.excluded, defect),
            }
        )
    return rows


def _guard(excluded: NDArray[np.int64] | None, defect: NDArray[np.bool_]) -> dict[str, float | None]:
    if excluded is None:
        return {"precision": None, "recall": None}
    hits = float(defect[excluded].sum())
    return {"precision": hits / len(excluded), "recall": hits / float(defect.sum())}


def _fitted(grids: Sequence[Tensor], excluded: float) -> GuardedBank:
    settings = SETTINGS.model_copy(update={"exclude_suspicious": excluded})
    return fit_bank((each.float() for each in grids), len(grids), settings)
