"""Nearest-neighbour search as the bank grows, beside bare exact search by faiss, in processor seconds."""

import time
from functools import partial
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.inputs import Request, fastest, image_files, whitened_patches
from benchmarks.report import MissingInput, Report
from novad.config import MemoryBankSettings
from novad.vision.memory_bank import MemoryBank
from novad.vision.patch_store import Whitening

__all__ = ["measure"]

SIZES = (10_000, 100_000, 1_000_000)
QUERIES = 1000
# Vectors beyond the patches at hand repeat them with noise of this share of a direction's spread, which is 1:
# a fourth of the distance from a patch to the nearest one of another image, or less.
JITTER = 0.1
HELD_OUT = 10  # every so many-th image is asked for, never stored

Floats = NDArray[np.float32]


def measure(request: Request) -> Report:
    """Ask for patches of held-out images in banks of patches of the others.

    Raises:
        MissingInput: there are no images, or too few to hold some out.
    """
    settings = MemoryBankSettings()
    files = image_files(request, request.images)
    if len(files) < HELD_OUT:
        raise MissingInput(f"{len(files)} images; {HELD_OUT} are needed, so that one is held out")
    patches = whitened_patches(request, files, settings).float()
    per_image = len(patches) // len(files)
    asked = torch.arange(len(files)).repeat_interleave(per_image) % HELD_OUT == HELD_OUT - 1
    generator = torch.Generator().manual_seed(0)
    queries = _drawn(patches[asked], QUERIES, generator)
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        rows.append(_row(_drawn(patches[~asked], size, generator), queries, request.repeats))
        rows[-1]["growth exponent"] = _exponent(rows[0], rows[-1])
    conditions = {
        "data": request.data.name,
        "images": len(files),
        "dimensions": int(patches.shape[1]),
        "queries": QUERIES,
        "fastest of": request.repeats,
    }
    return Report("Search as the bank grows, processor seconds", conditions, rows)


def _drawn(patches: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """So many patches, none twice while there are enough; copies with noise beyond."""
    order = torch.randperm(len(patches), generator=generator)
    if count <= len(patches):
        return patches[order[:count]]
    copies = torch.randint(len(patches), (count - len(patches),), generator=generator)
    noise = torch.randn(len(copies), patches.shape[1], generator=generator).mul_(JITTER)
    return torch.cat([patches, noise.add_(patches[copies])])


def _row(vectors: Tensor, queries: Tensor, repeats: int) -> dict[str, Any]:
    started = time.process_time()
    size = vectors.shape[1]
    whitening = Whitening(torch.zeros(size), torch.eye(size))
    bank = MemoryBank(whitening, vectors, np.zeros((len(vectors), 3), np.int32))
    built = time.process_time() - started
    bare = faiss.IndexFlatL2(size)
    bare.add(vectors.numpy())
    patches = queries[None, None]
    seconds = fastest(
        {
            "bare": partial(bare.search, queries.numpy(), 1),
            "novad": partial(bank.search, patches),
        },
        repeats,
        time.process_time,
    )
    _, exact = bare.search(queries.numpy(), 1)
    _, found = bank.search(patches)
    searched, lists = bank.lists
    return {
        "vectors": len(vectors),
        "lists searched": f"{searched} of {lists}" if lists else "exact",
        "built in s": round(built, 2),
        "bare faiss, s": round(seconds["bare"], 4),
        "novad, s": round(seconds["novad"], 4),
        "novad / bare": round(seconds["novad"] / seconds["bare"], 3),
        "recall": round(float((found.flatten().numpy() == exact.ravel()).mean()), 4),
    }


def _exponent(first: dict[str, Any], row: dict[str, Any]) -> float | None:
    """Power of the count of vectors by which search time has grown since the first row; 1 is linear."""
    if row is first:
        return None
    slower, larger = row["novad, s"] / first["novad, s"], row["vectors"] / first["vectors"]
    return round(float(np.log(slower) / np.log(larger)), 3)
