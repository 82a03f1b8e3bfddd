"""Few normals: what familiarity finds when 5, 10, 50 or all normal images train a line."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.familiarity import AUROC, MISSED, familiarity_figures, patch_grids
from benchmarks.inputs import Request, default_bank, requested_backbone
from benchmarks.report import MissingInput, Report
from novad.config.settings import ValidateSettings
from novad.images import assign_splits, build_manifest, discover
from novad.vision.calibration import promised_alpha

__all__ = ["measure"]

SIZES = (5, 10, 50)
DRAWS = 5
SETTINGS = ValidateSettings()


def measure(request: Request) -> Report:
    """Draw so many training normals, let the line's splits divide them, and judge its test split.

    Raises:
        MissingInput: no such folder, no defects in it, or too few normals.
        ConfigError: it is not in MVTec layout.
    """
    if not request.data.is_dir():
        raise MissingInput(f"no images at {request.data}; name a folder in MVTec layout with --data")
    manifest = build_manifest(request.data, discover(request.data, "mvtec"), SETTINGS.max_pixels)
    train = np.flatnonzero(manifest["source"] == "train")
    if len(train) <= min(SIZES) or not (manifest["label"] == 1).any():
        raise MissingInput(f"{request.data}: {min(SIZES) + 1} training normals and defects are needed")
    backbone = requested_backbone(request)
    # Which test images tune depends on them alone, so all trainings are judged on the same ones.
    judged = np.flatnonzero(_splits(manifest) == "test")
    files = [request.data / path for path in manifest["path"]]
    normals = dict(zip(train, patch_grids(backbone, [files[at] for at in train], request.size), strict=True))
    tested = patch_grids(backbone, [files[at] for at in judged], request.size)
    labels = manifest["label"].to_numpy(np.int64)[judged]
    rows = []
    for size in (*(each for each in SIZES if each < len(train)), len(train)):
        banks = list(_banks(manifest, train, size))
        figures = [
            familiarity_figures(default_bank((normals[at].float() for at in bank), len(bank)), tested, labels)
            for bank in banks
        ]
        rows.append(_row(size, len(banks[0]), figures))
    conditions = {
        "data": request.data.name,
        "test split": f"{int((labels == 0).sum())} + {int((labels == 1).sum())}",
        "layers": "+".join(backbone.layers),
        "size": request.size,
    }
    return Report("Few normals: familiarity on the test split", conditions, rows)


def _splits(manifest: pd.DataFrame) -> pd.Series:
    return assign_splits(
        manifest, SETTINGS.calibration_share, SETTINGS.tuning_share, 0, SETTINGS.near_duplicate_bits
    )


def _banks(manifest: pd.DataFrame, train: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Positions of the bank's images for several draws of ``size`` training normals; all are drawn once."""
    for draw in range(DRAWS if size < len(train) else 1):
        drawn = np.sort(np.random.default_rng(draw).choice(train, size, replace=False))
        splits = _splits(manifest.iloc[drawn])
        yield drawn[(splits == "bank").to_numpy()]


def _row(size: int, bank: int, figures: list[dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"normals": size, "in the bank": bank, "draws": len(figures)}
    row["false alarms promised"] = round(promised_alpha(size - bank, 0.05), 3)
    for name in (AUROC, MISSED):
        values = [each[name] for each in figures]
        row |= {name: float(np.mean(values)), f"{name}, range": f"{min(values):.3f} to {max(values):.3f}"}
    return row
