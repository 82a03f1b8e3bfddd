"""Stage memory_bank: a whitened coreset of the bank split's patch features."""

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from novad.config import Workspace
from novad.stages.guarded_bank import fit_bank
from novad.stages.layer_choice import Reading, wide_backbone
from novad.stages.line import Line, evenly, spread
from novad.stages.runner import main, stage_output, write_json
from novad.stages.stem_choice import choose_reading
from novad.stages.suspicious_images import write_suspicious
from novad.vision.appearance import vector_appearance
from novad.vision.backbones import Backbone
from novad.vision.calibration import fit_normal_scale
from novad.vision.familiarity import familiarity_scores
from novad.vision.memory_bank import BankEstimate, MemoryBank, bank_size, estimate, save_bank
from novad.vision.places import displacement
from novad.vision.preprocess import batches, images_at_once, to_batch

__all__ = ["run"]

STAGE = "memory_bank"
MOST_SCALED = 64
MOST_CHANGED = 8


def run(workspace: Workspace, name: str) -> None:
    """Build and save the bank of one line."""
    line = Line.open(workspace, name)
    rows = line.rows("bank")
    choice = choose_reading(line, line.backbone(line.settings.backbone))
    reading = choice.reading
    backbone = wide_backbone(line, [reading])
    expected, shape = _estimate(line, backbone, reading, len(rows))
    print(
        f"memory bank of {name}: {len(rows)} images, {expected.patches} patches kept, "
        f"{expected.vectors} vectors, about {expected.megabytes} MB beside the network",
        file=sys.stderr,
    )
    settings = line.settings
    told = settings.memory_bank.model_copy(update={"smoothing": reading.smoothing})
    guarded = fit_bank(_grids(line, backbone, reading, rows), len(rows), told, settings.seed)
    bank, excluded = guarded.bank, rows.index.isin(guarded.excluded)
    kept = rows[~excluded]
    looked_at = _images(line, kept)
    bank.appearance = vector_appearance(looked_at, bank.origins, shape)
    bank.companions = tuple(_companion(line, backbone, each, kept) for each in reading.beside)
    for each, by in zip((bank, *bank.companions), (reading, *reading.beside), strict=True):
        if reading.companions:
            each.scale = _scale(line, backbone, each, by, kept)
        if settings.anomaly_type == "sensory":
            each.displacement = _displacement(line, backbone, by, kept)
    with stage_output(workspace, name, STAGE) as folder:
        save_bank(bank, folder / "bank.safetensors")
        write_suspicious(line, rows, guarded, folder)
        write_json(
            folder / "bank.json",
            {
                "line": name,
                "backbone": backbone.architecture,
                "layers": list(reading.layers),
                "companions": list(reading.companions),
                "neighbourhood": reading.neighbourhood,
                "smoothing": reading.smoothing,
                "layer_choice": choice.table,
                "stem_choice": choice.stem_table,
                "anomaly_type": line.settings.anomaly_type,
                "vectors": len(bank.vectors),
                "dimensions": int(bank.vectors.shape[1]),
                "estimate": vars(expected),
                "images": _named(kept),
                "excluded": _named(rows[excluded]),
            },
        )


def _named(rows: pd.DataFrame) -> list[list[str]]:
    """Path and digest of each image."""
    named: list[list[str]] = rows[["path", "sha256"]].to_numpy().tolist()
    return named


def _images(line: Line, rows: pd.DataFrame) -> Iterator[Tensor]:
    """Batches (N, 3, H, W)."""
    size = line.settings.backbone.input_size
    return (to_batch(group, size) for group in batches(line.images(rows), images_at_once(size)))


def _grids(line: Line, backbone: Backbone, reading: Reading, rows: pd.DataFrame) -> Iterator[Tensor]:
    for images in _images(line, rows):
        yield from reading.grids(backbone(images), line.settings.anomaly_type)


def _companion(line: Line, backbone: Backbone, reading: Reading, rows: pd.DataFrame) -> MemoryBank:
    """A bank of the images that the guard left."""
    told = line.settings.memory_bank.model_copy(
        update={"smoothing": reading.smoothing, "exclude_suspicious": 0.0}
    )
    return fit_bank(_grids(line, backbone, reading, rows), len(rows), told, line.settings.seed).bank


def _displacement(line: Line, backbone: Backbone, reading: Reading, rows: pd.DataFrame) -> Tensor:
    """How far what is compared lies from the pixels that it tells of, measured on some of the images."""

    def grids(images: Tensor) -> Tensor:
        return reading.grids(backbone(images), line.settings.anomaly_type)

    with torch.inference_mode():
        parts = _images(line, evenly(rows, MOST_CHANGED))
        return torch.stack([displacement(grids, part, line.settings.seed) for part in parts]).mean(dim=0)


def _scale(line: Line, backbone: Backbone, bank: MemoryBank, reading: Reading, rows: pd.DataFrame) -> Tensor:
    """(2,) median and spread of the scores of the bank's own images, each by the vectors of the others."""
    asked, told = spread(len(rows), min(MOST_SCALED, len(rows))), line.settings.memory_bank
    scores = list[Tensor]()
    with torch.inference_mode():
        grids = _grids(line, backbone, reading, rows.iloc[asked])
        for number, grid in zip(asked.astype(np.int32), grids, strict=True):
            found = familiarity_scores(
                bank, grid[None], told.neighbours, told.top_share, reading.smoothing, np.array([number])
            )
            scores.append(found.scores)
    scale = fit_normal_scale(torch.cat(scores).double().numpy())
    return torch.tensor([scale.median, scale.spread])


def _estimate(
    line: Line, backbone: Backbone, reading: Reading, images: int
) -> tuple[BankEstimate, tuple[int, int]]:
    """Memory and size of the bank, and h, w of its patches, from the features of one blank image."""
    settings, size = line.settings.memory_bank, line.settings.backbone.input_size
    with torch.inference_mode():
        grid = reading.grids(backbone(torch.zeros(1, 3, *size)), line.settings.anomaly_type)
    patches = images * grid.shape[2] * grid.shape[3]
    vectors = bank_size(patches, settings.coreset_share, settings.min_vectors, settings.max_vectors)
    shape = (grid.shape[2], grid.shape[3])
    return estimate(images, shape, grid.shape[1], settings.dimensions, vectors, settings.max_patches), shape


if __name__ == "__main__":
    main(run, STAGE)
