"""Images into a memory bank and out of it against a rebuild: time, vectors, covering, image scores."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs import Request, fastest, image_files, read, requested_backbone
from benchmarks.report import MissingInput, Report
from novad.config import MemoryBankSettings
from novad.vision.backbones import Backbone
from novad.vision.bank_updates import add_images, refit_usual, remove_images
from novad.vision.familiarity import familiarity_scores, feature_grids
from novad.vision.memory_bank import MemoryBank, fit_memory_bank
from novad.vision.patch_store import Whitening
from novad.vision.preprocess import to_batch

__all__ = ["measure"]

SCORED = 10  # every tenth image is in no bank, and scored with all
ADDED = 5  # every fifth of the others comes later
REMOVED = 20  # every twentieth of them goes

Grids = Mapping[int, Tensor]


@dataclass(frozen=True)
class Way:
    """One way to a bank.

    Attributes:
        build: gives the bank.
        grids: features of the images by the numbers that its origins tell.
        read: images whose features it needs.
    """

    build: Callable[[], MemoryBank]
    grids: Grids
    read: int


def measure(request: Request) -> Report:
    """Add a fifth of the images and remove a twentieth.

    Raises:
        MissingInput: too few images.
    """
    files, backbone = image_files(request, request.images), requested_backbone(request)
    if len(files) < 2 * SCORED:
        raise MissingInput(f"{len(files)} training images in {request.data}: {2 * SCORED} are needed")
    started = time.perf_counter()
    features = [_grid(backbone, read(path), request.size) for path in files]
    per_image = (time.perf_counter() - started) / len(files)
    scored = torch.stack(features[::SCORED])
    normals = [grid for number, grid in enumerate(features) if number % SCORED]
    late = normals[::ADDED]
    early = [grid for number, grid in enumerate(normals) if number % ADDED]
    rows = []
    for task, start, ways in (
        (f"{len(early)} images + {len(late)}", _built(early), partial(_additions, early, late)),
        (f"{len(normals)} images - {len(normals[::REMOVED])}", _built(normals), partial(_removals, normals)),
    ):
        rows += [
            {"bank": task, **row} for row in _rows(start, ways(start), scored, per_image, request.repeats)
        ]
    return Report(
        "Memory bank: updates against a rebuild",
        {
            "data": request.data.name,
            "images scored": len(scored),
            "patches per image": features[0][0].numel(),
            "dimensions": len(features[0]),
            "seconds of network per image": round(per_image, 4),
            "fastest of": request.repeats,
        },
        rows,
    )


def _additions(early: list[Tensor], late: list[Tensor], start: MemoryBank) -> dict[str, Way]:
    """The first is what the others are compared with."""
    together = early + late
    grids = dict(enumerate(together))

    def added() -> MemoryBank:
        return add_images(start, late, len(early))

    return {
        "rebuild": Way(lambda: _built(together), grids, len(together)),
        "rebuild, another seed": Way(lambda: _built(together, seed=1), grids, len(together)),
        "add_images": Way(added, grids, len(late)),
        "add_images, refit_usual": Way(lambda: refit_usual(added(), grids), grids, len(together)),
        "left as it was": Way(lambda: start, grids, 0),
    }


def _removals(normals: list[Tensor], start: MemoryBank) -> dict[str, Way]:
    """The first is what the others are compared with."""
    grids = dict(enumerate(normals))
    gone = list(grids)[::REMOVED]
    stay = {number: grid for number, grid in grids.items() if number % REMOVED}
    anew = list(stay.values())
    return {
        "rebuild": Way(lambda: _built(anew), dict(enumerate(anew)), len(anew)),
        "rebuild, another seed": Way(lambda: _built(anew, seed=1), dict(enumerate(anew)), len(anew)),
        "remove_images, with what stays": Way(lambda: remove_images(start, gone, stay), stay, len(stay)),
        "remove_images alone": Way(lambda: remove_images(start, gone), stay, 0),
    }


def _rows(
    start: MemoryBank, ways: dict[str, Way], scored: Tensor, per_image: float, repeats: int
) -> list[dict[str, Any]]:
    """Each way beside the first; radii and distances in the space of ``start``."""
    banks: dict[str, MemoryBank] = {}

    def build(name: str) -> None:
        banks[name] = ways[name].build()

    seconds = fastest({name: partial(build, name) for name in ways}, repeats)
    scores = {name: _scores(bank, scored) for name, bank in banks.items()}
    first = next(iter(ways))
    seen = list(ways[first].grids.values())
    alike = {name: _in_space(bank, ways[name].grids, start.whitening) for name, bank in banks.items()}
    reached = {name: _reach(bank, seen) for name, bank in alike.items()}
    nearest = {name: bank.search(bank.patches(scored))[0] for name, bank in alike.items()}
    spread = float(scores[first].std())
    full = {name: seconds[name] + way.read * per_image for name, way in ways.items()}
    rows = []
    for name, bank in banks.items():
        change = (scores[name] - scores[first]).abs() / spread
        rows.append(
            {
                "way": name,
                "seconds": round(seconds[name], 3),
                "time / rebuild": round(seconds[name] / seconds[first], 4),
                "with network": round(full[name] / full[first], 4),
                "vectors": len(bank.vectors),
                "radius": round(reached[name], 3),
                "told": None if bank.radius is None else round(bank.radius, 3),
                "radius / rebuild": round(reached[name] / reached[first], 4),
                "pairwise a radius apart": _apart(alike[name], reached[name]),
                "largest change of a distance": round(float((nearest[name] - nearest[first]).abs().max()), 3),
                "mean change of scores, sd": round(float(change.mean()), 4),
                "largest, sd": round(float(change.max()), 4),
            }
        )
    return rows


def _built(grids: list[Tensor], seed: int = 0) -> MemoryBank:
    """A bank by a line's default settings."""
    settings = MemoryBankSettings()
    return fit_memory_bank(
        grids,
        len(grids),
        coreset_share=settings.coreset_share,
        min_vectors=settings.min_vectors,
        max_vectors=settings.max_vectors,
        dimensions=settings.dimensions,
        whiten=settings.whiten,
        max_patches=settings.max_patches,
        seed=seed,
    )


def _grid(backbone: Backbone, image: np.ndarray, size: int) -> Tensor:
    with torch.inference_mode():
        return feature_grids(backbone(to_batch([image], size)), "sensory")[0]


def _scores(bank: MemoryBank, grids: Tensor) -> Tensor:
    settings = MemoryBankSettings()
    return familiarity_scores(bank, grids, settings.neighbours, settings.top_share, settings.smoothing).scores


def _in_space(bank: MemoryBank, grids: Grids, whitening: Whitening) -> MemoryBank:
    """The same patches as vectors under another whitening."""
    raw = torch.stack([grids[image][:, row, column] for image, row, column in bank.origins.tolist()])
    return MemoryBank(whitening, whitening(raw.half()).half(), bank.origins)


def _reach(bank: MemoryBank, grids: list[Tensor]) -> float:
    """Covering radius over all patches."""
    return max(float(bank.search(bank.patches(grid[None]))[0].max()) for grid in grids)


def _apart(bank: MemoryBank, radius: float) -> int:
    """How many vectors, taken in their order, are at least a radius from all taken before."""
    near = (torch.cdist(bank.vectors, bank.vectors) < radius).numpy()
    taken = np.zeros(len(near), bool)
    for at, row in enumerate(near):
        taken[at] = not (row & taken).any()
    return int(taken.sum())
