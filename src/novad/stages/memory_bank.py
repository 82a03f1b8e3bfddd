"""Stage memory_bank: a whitened coreset of the bank split's patch features."""

import sys
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from novad.config import MemoryBankSettings, Workspace
from novad.stages.layer_choice import choose_layers
from novad.stages.line import Line
from novad.stages.runner import main, stage_output, write_json
from novad.vision.backbones import Backbone
from novad.vision.familiarity import feature_grids
from novad.vision.memory_bank import BankEstimate, MemoryBank, bank_size, estimate, fit_memory_bank, save_bank
from novad.vision.preprocess import batches, to_batch

__all__ = ["fit_bank", "run"]

STAGE = "memory_bank"
BATCH = 8


def run(workspace: Workspace, name: str) -> None:
    """Build and save the bank of one line."""
    line = Line.open(workspace, name)
    rows = line.rows("bank")
    choice = choose_layers(line, line.backbone(line.settings.backbone))
    backbone = line.backbone(line.settings.backbone, choice.layers)
    expected = _estimate(line, backbone, len(rows))
    print(
        f"memory bank of {name}: {len(rows)} images, {expected.patches} patches kept, "
        f"{expected.vectors} vectors, about {expected.megabytes} MB beside the network",
        file=sys.stderr,
    )
    settings = line.settings
    bank = fit_bank(_grids(line, backbone), len(rows), settings.memory_bank, settings.seed)
    with stage_output(workspace, name, STAGE) as folder:
        save_bank(bank, folder / "bank.safetensors")
        write_json(
            folder / "bank.json",
            {
                "line": name,
                "backbone": backbone.architecture,
                "layers": list(backbone.layers),
                "layer_choice": choice.table,
                "anomaly_type": line.settings.anomaly_type,
                "vectors": len(bank.vectors),
                "dimensions": int(bank.vectors.shape[1]),
                "estimate": vars(expected),
                "images": rows[["path", "sha256"]].to_numpy().tolist(),
            },
        )


def fit_bank(grids: Iterable[Tensor], images: int, settings: MemoryBankSettings, seed: int = 0) -> MemoryBank:
    """The bank that a line's settings ask for.

    Args:
        grids: one (C, H, W) tensor of patch features per image.
        images: how many the stream will give.
    Raises:
        CalibrationError: no image, or features that are not finite.
    """
    with torch.inference_mode():
        return fit_memory_bank(
            grids,
            images,
            coreset_share=settings.coreset_share,
            min_vectors=settings.min_vectors,
            max_vectors=settings.max_vectors,
            dimensions=settings.dimensions,
            whiten=settings.whiten,
            max_patches=settings.max_patches,
            seed=seed,
        )


def _grids(line: Line, backbone: Backbone) -> Iterator[Tensor]:
    size = line.settings.backbone.image_size
    for group in batches(line.images(line.rows("bank")), BATCH):
        yield from feature_grids(backbone(to_batch(group, size)), line.settings.anomaly_type)


def _estimate(line: Line, backbone: Backbone, images: int) -> BankEstimate:
    """Memory and size of the bank, from the shape of one blank image's features."""
    settings, size = line.settings.memory_bank, line.settings.backbone.image_size
    with torch.inference_mode():
        grid = feature_grids(backbone(torch.zeros(1, 3, size, size)), line.settings.anomaly_type)
    patches = images * grid.shape[2] * grid.shape[3]
    vectors = bank_size(patches, settings.coreset_share, settings.min_vectors, settings.max_vectors)
    shape = (grid.shape[2], grid.shape[3])
    return estimate(images, shape, grid.shape[1], settings.dimensions, vectors, settings.max_patches)


if __name__ == "__main__":
    main(run, STAGE)
