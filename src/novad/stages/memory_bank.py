"""Stage memory_bank: a whitened coreset of the bank split's patch features."""

import sys
from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor

from novad.config import Workspace
from novad.stages.guarded_bank import fit_bank
from novad.stages.line import Line
from novad.stages.runner import main, stage_output, write_json
from novad.stages.stem_choice import choose_reading
from novad.stages.suspicious_images import write_suspicious
from novad.vision.appearance import vector_appearance
from novad.vision.backbones import Backbone
from novad.vision.familiarity import feature_grids
from novad.vision.memory_bank import BankEstimate, bank_size, estimate, save_bank
from novad.vision.preprocess import batches, images_at_once, to_batch

__all__ = ["run"]

STAGE = "memory_bank"


def run(workspace: Workspace, name: str) -> None:
    """Build and save the bank of one line."""
    line = Line.open(workspace, name)
    rows = line.rows("bank")
    choice = choose_reading(line, line.backbone(line.settings.backbone))
    reading = choice.reading
    backbone = line.backbone(line.settings.backbone, reading.layers)
    expected, shape = _estimate(line, backbone, len(rows))
    print(
        f"memory bank of {name}: {len(rows)} images, {expected.patches} patches kept, "
        f"{expected.vectors} vectors, about {expected.megabytes} MB beside the network",
        file=sys.stderr,
    )
    settings = line.settings
    told = settings.memory_bank.model_copy(update={"smoothing": reading.smoothing})
    grids = _grids(line, backbone, reading.neighbourhood)
    guarded = fit_bank(grids, len(rows), told, settings.seed)
    bank, excluded = guarded.bank, rows.index.isin(guarded.excluded)
    looked_at = _images(line, rows[~excluded])
    bank.appearance = vector_appearance(looked_at, bank.origins, shape, reading.neighbourhood)
    with stage_output(workspace, name, STAGE) as folder:
        save_bank(bank, folder / "bank.safetensors")
        write_suspicious(line, rows, guarded, folder)
        write_json(
            folder / "bank.json",
            {
                "line": name,
                "backbone": backbone.architecture,
                "layers": list(backbone.layers),
                "neighbourhood": reading.neighbourhood,
                "smoothing": reading.smoothing,
                "layer_choice": choice.table,
                "stem_choice": choice.stem_table,
                "anomaly_type": line.settings.anomaly_type,
                "vectors": len(bank.vectors),
                "dimensions": int(bank.vectors.shape[1]),
                "estimate": vars(expected),
                "images": _named(rows[~excluded]),
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


def _grids(line: Line, backbone: Backbone, neighbourhood: int) -> Iterator[Tensor]:
    for images in _images(line, line.rows("bank")):
        yield from feature_grids(backbone(images), line.settings.anomaly_type, neighbourhood)


def _estimate(line: Line, backbone: Backbone, images: int) -> tuple[BankEstimate, tuple[int, int]]:
    """Memory and size of the bank, and h, w of its patches, from the features of one blank image."""
    settings, size = line.settings.memory_bank, line.settings.backbone.input_size
    with torch.inference_mode():
        grid = feature_grids(backbone(torch.zeros(1, 3, *size)), line.settings.anomaly_type)
    patches = images * grid.shape[2] * grid.shape[3]
    vectors = bank_size(patches, settings.coreset_share, settings.min_vectors, settings.max_vectors)
    shape = (grid.shape[2], grid.shape[3])
    return estimate(images, shape, grid.shape[1], settings.dimensions, vectors, settings.max_patches), shape


if __name__ == "__main__":
    main(run, STAGE)
