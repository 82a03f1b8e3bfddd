"""The coreset beside anomalib's KCenterGreedy, at the size of a whole data set: time and covering radius."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.inputs import Request, image_files, requested_backbone, whitened_patches
from benchmarks.report import MissingInput, Report
from novad.benchmarking.anomalib_runs import HOW_TO, find_anomalib
from novad.config import MemoryBankSettings
from novad.vision.coreset import covering_radius, greedy_coreset

__all__ = ["measure"]

SCRIPT = Path(__file__).with_name("anomalib_coreset.py")
# Every so many-th patch, share chosen, does anomalib choose too? It takes as long for every centre, so for a
# tenth of all patches ten times as long as for a hundredth: that is asked of fewer patches.
SIZES = ((1, 0.01, True), (1, 0.1, False), (8, 0.01, True), (8, 0.1, True))
EXACT_UP_TO = 5000  # centres
LONGEST = 7200
# anomalib makes an array of all patches anew for every centre. Where it is a little smaller than what glibc
# maps by itself (32 MiB), small arrays in between keep the heap from shrinking: 23,030 patches took 23 GB.
_MAPPED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


@dataclass(frozen=True)
class Choice:
    """Positions chosen, and what choosing them took."""

    chosen: NDArray[np.int64]
    seconds: float
    processor: float


def measure(request: Request) -> Report:
    """Choose shares of the patches of all images, all directions kept, in turn.

    Raises:
        MissingInput: no images, or no interpreter with anomalib was named.
        ConfigError: the one that was named has none.
    """
    if request.anomalib is None:
        raise MissingInput(HOW_TO)
    other = find_anomalib(request.anomalib, timeout=LONGEST)
    settings = MemoryBankSettings(dimensions=0)
    files = image_files(request, request.images)
    backbone = requested_backbone(request).architecture
    patches = whitened_patches(request, files, settings)
    rows: list[dict[str, Any]] = []
    for step, share, beside in SIZES:
        some = patches[::step].contiguous()
        ways: dict[str, Callable[[], Choice]] = {"novad": partial(_ours, some, share)}
        if beside:
            ways[f"anomalib {other.version}"] = partial(_theirs, other.interpreter, some, share)
        if len(some) * share <= EXACT_UP_TO:
            # In single precision at once: exact greedy would read half precision anew for every centre.
            ways["exact greedy"] = partial(_ours, some.float(), share, centres_per_pass=1, candidates=1)
        rows += _rows(some, share, ways)
    return Report(
        "Coreset beside anomalib",
        {"data": request.data.name, "images": len(files), "backbone": backbone},
        rows,
    )


def _rows(patches: Tensor, share: float, ways: dict[str, Callable[[], Choice]]) -> list[dict[str, Any]]:
    choices = {}
    for name, choose in ways.items():
        choices[name] = choose()
        # Some take a quarter of an hour: what is known is told at once.
        print(f"{share} of {len(patches)} by {name}: {choices[name].seconds:.1f} s", file=sys.stderr)
    ours = choices["novad"]
    exact = "exact greedy"
    radius = {name: covering_radius(patches, choice.chosen) for name, choice in choices.items()}
    return [
        {
            "patches": len(patches),
            "dimensions": int(patches.shape[1]),
            "chosen": len(choice.chosen),
            "by": name,
            "seconds": round(choice.seconds, 2),
            "of processors": round(choice.processor, 2),
            "seconds / novad": round(choice.seconds / ours.seconds, 1),
            "of processors / novad": round(choice.processor / ours.processor, 1),
            "covering radius": round(radius[name], 4),
            "radius / exact": round(radius[name] / radius[exact], 4) if exact in radius else None,
        }
        for name, choice in choices.items()
    ]


def _ours(patches: Tensor, share: float, **options: int) -> Choice:
    clock, processor = time.perf_counter(), time.process_time()
    chosen = greedy_coreset(patches, int(len(patches) * share), **options).chosen
    return Choice(chosen, time.perf_counter() - clock, time.process_time() - processor)


def _theirs(interpreter: Path, patches: Tensor, share: float) -> Choice:
    with tempfile.TemporaryDirectory() as folder:
        array, told = Path(folder, "patches.npy"), Path(folder, "chosen.json")
        np.save(array, patches.numpy())
        subprocess.run(
            [interpreter, "-I", SCRIPT, array, str(share), str(torch.get_num_threads()), told],
            check=True,
            capture_output=True,
            timeout=LONGEST,
            env={**os.environ, **_MAPPED},
        )
        content = json.loads(told.read_text("utf-8"))
    return Choice(np.asarray(content["chosen"]), content["seconds"], content["processor"])
