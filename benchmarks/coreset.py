"""Greedy coreset, many centres per pass, against the exact one: covering radius and time."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.inputs import Request, fastest, image_files, whitened_patches
from benchmarks.report import Report
from novad.config import MemoryBankSettings
from novad.vision.coreset import covering_radius, greedy_coreset

__all__ = ["measure", "plain_k_center", "random_choice"]

Chosen = NDArray[np.int64]
Method = Callable[[Tensor, int], Chosen]


def plain_k_center(patches: Tensor, count: int, seed: int = 0) -> Chosen:
    """Exact greedy k-center (Gonzalez 1985) as the textbook has it: one centre, one pass of differences."""
    points = patches.float().numpy()
    chosen = [int(np.random.default_rng(seed).integers(len(points)))]
    distances = np.full(len(points), np.inf, np.float32)
    while len(chosen) < count:
        differences = points - points[chosen[-1]]
        np.minimum(distances, np.einsum("nd,nd->n", differences, differences), out=distances)
        chosen.append(int(distances.argmax()))
    return np.asarray(chosen)


def random_choice(patches: Tensor, count: int, seed: int = 0) -> Chosen:
    """What costs nothing."""
    return np.random.default_rng(seed).choice(len(patches), count, replace=False)


def novad_choice(patches: Tensor, count: int, **options: int) -> Chosen:
    """What the memory bank takes."""
    return greedy_coreset(patches, count, **options).chosen


EXACT = "exact greedy, in blocks"
METHODS: dict[str, Method] = {
    "novad: 64 centres per pass": novad_choice,
    "32 centres per pass": partial(novad_choice, centres_per_pass=32),
    EXACT: partial(novad_choice, centres_per_pass=1, candidates=1),
    "exact greedy, plain k-center": plain_k_center,
    "random": random_choice,
}


def measure(request: Request) -> Report:
    """Choose the share of patches that a line keeps by default, in every way."""
    settings = MemoryBankSettings()
    files = image_files(request, request.coreset_images)
    patches = whitened_patches(request, files, settings)
    count = round(len(patches) * settings.coreset_share)
    seconds = fastest(
        {name: partial(method, patches, count) for name, method in METHODS.items()}, request.repeats
    )
    radius = {name: covering_radius(patches, method(patches, count)) for name, method in METHODS.items()}
    return Report(
        "Coreset: covering radius and time",
        {
            "data": request.data.name,
            "patches": len(patches),
            "dimensions": int(patches.shape[1]),
            "chosen": count,
            "fastest of": request.repeats,
        },
        [
            {
                "method": name,
                "seconds": round(taken, 3),
                "time / exact": round(taken / seconds[EXACT], 4),
                "covering radius": round(radius[name], 4),
                "radius / exact": round(radius[name] / radius[EXACT], 4),
            }
            for name, taken in seconds.items()
        ],
    )
