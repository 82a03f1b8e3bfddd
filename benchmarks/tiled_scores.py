"""Do the same bank and the same statistics give the same scores whether images are cut into tiles or not?"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs import Request, bundled_backbone, default_bank, fastest, image_files, read
from benchmarks.report import MissingInput, Report
from novad.config import CalibrateExplainerSettings, MemoryBankSettings
from novad.evaluation.metrics import image_auroc
from novad.images import discover
from novad.vision.backbones import Backbone
from novad.vision.candidates import CandidateGrid, fit_normal_statistics
from novad.vision.explainers import BcosExplainer
from novad.vision.familiarity import feature_grids
from novad.vision.models import FamiliarityModel, NoveltyModel, raw_scores
from novad.vision.preprocess import batches, images_at_once, to_batch

__all__ = ["measure"]

TARGET = "layer1+layer2+layer3"
MOST_BANK, MOST_FITTED = 24, 8
Models = tuple[FamiliarityModel, NoveltyModel]


def measure(request: Request) -> Report:
    """Score test images by both; the tile is half of the image's side.

    Raises:
        MissingInput: there is no such folder, or no defect in it.
    """
    bank_files = image_files(request, min(request.images or MOST_BANK, MOST_BANK))
    files, labels = _test_files(request)
    whole, tiled = bundled_backbone(), bundled_backbone()
    tiled.cut(-(-request.size // 64) * 32)
    models = _models(whole, list(_tensors(bank_files, request.size)), len(bank_files))
    found: dict[str, dict[str, Tensor]] = {}

    def score(name: str, backbone: Backbone) -> None:
        found[name] = _scored(backbone, models, files, request.size)

    seconds = fastest({"whole": partial(score, "whole", whole), "tiled": partial(score, "tiled", tiled)}, 1)
    rows = [_row(name, each, found["tiled"][name], labels) for name, each in found["whole"].items()]
    facts = {
        "data": request.data.name,
        "side": request.size,
        "tile": -(-request.size // 64) * 32,
        "explained": TARGET,
        "bank images": len(bank_files),
        "normal and defective images": f"{labels.count(0)} and {labels.count(1)}",
        "time / whole": round(seconds["tiled"] / seconds["whole"], 2),
    }
    return Report("The same scores from tiles", facts, rows)


def _row(name: str, whole: Tensor, tiled: Tensor, labels: list[int]) -> dict[str, Any]:
    """An image's score, or a map whose AUROC means nothing."""
    auroc = [
        image_auroc(each.numpy(), np.array(labels)) if each.ndim == 1 else None for each in (whole, tiled)
    ]
    return {
        "what": name,
        "spread over images or places": float(whole.std()),
        "largest difference, of that": float((tiled - whole).abs().max() / whole.std()),
        "AUROC whole": auroc[0],
        "AUROC tiled": auroc[1],
    }


def _test_files(request: Request) -> tuple[list[Path], list[int]]:
    """As many normal as defective test images, evenly spread."""
    found = [each for each in discover(request.data, "mvtec") if each.source == "test"]
    files, labels = [], []
    for label in (0, 1):
        kind = [request.data / each.path for each in found if each.label == label]
        if not kind:
            raise MissingInput(f"no {('normal', 'defective')[label]} test image in {request.data}")
        count = min(len(kind), request.scored // 2)
        files += [kind[number * len(kind) // count] for number in range(count)]
        labels += [label] * count
    return files, labels


def _tensors(files: list[Path], size: int) -> Iterator[Tensor]:
    return (to_batch(group, size) for group in batches((read(path) for path in files), images_at_once(size)))


def _scored(backbone: Backbone, models: Models, files: list[Path], size: int) -> dict[str, Tensor]:
    """Image scores (N,) and maps (N, h, w) of the models' bank and statistics with another backbone."""
    familiarity = replace(models[0], backbone=backbone)
    novelty = replace(models[1], explainer=BcosExplainer(backbone))
    raw = [raw_scores(familiarity, novelty, batch) for batch in _tensors(files, size)]
    return {
        "familiarity": torch.cat([each.familiarity.scores for each in raw]),
        "novelty": torch.cat([each.novelty for each in raw]),
        "familiarity map": torch.cat([each.familiarity.maps for each in raw]),
        "novelty map": torch.cat([each.novelty_maps for each in raw]),
    }


def _models(backbone: Backbone, normals: list[Tensor], images: int) -> Models:
    told = MemoryBankSettings()
    with torch.inference_mode():
        bank = default_bank(
            (grid for batch in normals for grid in feature_grids(backbone(batch), "sensory")), images
        )
    familiarity = FamiliarityModel(backbone, bank, "sensory", told.neighbours, told.top_share, told.smoothing)
    explainer = BcosExplainer(backbone)
    grid = CandidateGrid.of(explainer, [TARGET], [], [2.0], CalibrateExplainerSettings().top_shares[:1])
    shown = grid.reference(explainer)
    fitted = torch.cat(normals)[:MOST_FITTED].split(images_at_once(normals[0].shape[-1]))
    fits = fit_normal_statistics(grid, [(explainer, batch) for batch in fitted])
    return familiarity, NoveltyModel(explainer, shown, (shown,), None, {2.0: fits[TARGET, 2.0]})
