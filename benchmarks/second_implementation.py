"""Pixel figures on the same maps by anomalib and torchmetrics: do two implementations agree?"""

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.inputs import Request
from benchmarks.report import MissingInput, Report
from novad.benchmarking.anomalib_runs import HOW_TO, find_anomalib
from novad.evaluation.pixels import PIMO_BOUNDS, PixelFigures

__all__ = ["measure"]

NORMALS, DEFECTIVE, SIDE = 12, 8, 512
FIGURES = ("pixel_auroc", "aupro", "aupimo")
SCRIPT = Path(__file__).with_name("anomalib_figures.py")
Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]


def measure(request: Request) -> Report:
    """Compare on maps of several kinds: smooth, noisy, tied, and nearly without an error.

    Raises:
        MissingInput: no interpreter with anomalib was named.
        ConfigError: the one that was named has none.
    """
    if request.anomalib is None:
        raise MissingInput(HOW_TO)
    environment = find_anomalib(request.anomalib, timeout=600)
    rows = []
    for name, drawn in KINDS.items():
        maps, masks = drawn(np.random.default_rng(0))
        ours, theirs = _ours(maps, masks), _theirs(environment.interpreter, maps, masks)
        compared = {figure: (ours[figure], theirs[figure]) for figure in FIGURES}
        compared["aupimo, bounds moved"] = (_aupimo_with_moved_bounds(maps, masks), theirs["aupimo"])
        rows += [
            {
                "maps": name,
                "figure": figure,
                "novad": mine,
                f"anomalib {environment.version}": round(other, 6),
                "difference": round(mine - other, 6),
            }
            for figure, (mine, other) in compared.items()
        ]
    return Report(
        "Pixel figures by two implementations",
        {"normal": NORMALS, "defective": DEFECTIVE, "side": SIDE},
        rows,
    )


def _smooth(rng: np.random.Generator) -> tuple[Maps, Masks]:
    return _with_defects(rng, sigma=3.0, shift=2.0)


def _noisy(rng: np.random.Generator) -> tuple[Maps, Masks]:
    return _with_defects(rng, sigma=0.0, shift=3.0)


def _tied(rng: np.random.Generator) -> tuple[Maps, Masks]:
    maps, masks = _with_defects(rng, sigma=1.0, shift=3.0)
    return np.round(maps, 1), masks


def _nearly_perfect(rng: np.random.Generator) -> tuple[Maps, Masks]:
    return _with_defects(rng, sigma=2.0, shift=5.0)


KINDS: dict[str, Callable[[np.random.Generator], tuple[Maps, Masks]]] = {
    "smooth": _smooth,
    "noisy": _noisy,
    "tied": _tied,
    "nearly perfect": _nearly_perfect,
}


def _with_defects(rng: np.random.Generator, sigma: float, shift: float) -> tuple[Maps, Masks]:
    """Standardised noise, blurred; blobs of several sizes on the defective images, higher by ``shift``."""
    maps = rng.normal(size=(NORMALS + DEFECTIVE, SIDE, SIDE))
    maps = ndimage.gaussian_filter(maps, (0, sigma, sigma))
    masks = np.zeros(maps.shape, bool)
    for mask in masks[NORMALS:]:
        for row, column in rng.integers(0, SIDE - 24, (3, 2)):
            height, width = rng.integers(3, 24, 2)
            mask[row : row + height, column : column + width] = True
    maps += shift * maps.std() * masks
    return maps.astype(np.float32), masks


def _ours(maps: Maps, masks: Masks) -> dict[str, float]:
    figures = PixelFigures()
    for heat, mask in zip(maps, masks, strict=True):
        figures.add(heat, mask if mask.any() else None)
    return {name: value for name, value in figures.finish().items() if value is not None}


def _aupimo_with_moved_bounds(maps: Maps, masks: Masks) -> float:
    """AUPIMO as anomalib bounds it: from and to the rates nearest to 1e-5 and 1e-4 that occur.

    Its area is still divided by the width between the bounds themselves. novad reads the curve at the bounds.
    """
    normals = np.sort(-maps[:NORMALS].ravel())
    steps = np.unique(normals)
    rates = np.searchsorted(normals, steps, side="right") / len(normals)
    defects = [np.sort(-heat[mask]) for heat, mask in zip(maps[NORMALS:], masks[NORMALS:], strict=True)]
    recall = np.mean([np.searchsorted(each, steps, side="right") / len(each) for each in defects], axis=0)
    low, high = (int(np.argmin(np.abs(rates - bound))) for bound in PIMO_BOUNDS)
    area = np.trapezoid(recall[low : high + 1], np.log(rates[low : high + 1]))
    return round(float(area / np.log(PIMO_BOUNDS[1] / PIMO_BOUNDS[0])), 6)


def _theirs(interpreter: Path, maps: Maps, masks: Masks) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        archive, told = Path(folder, "maps.npz"), Path(folder, "figures.json")
        np.savez(archive, maps=maps, masks=masks)
        subprocess.run(
            [interpreter, "-I", SCRIPT, archive, told], check=True, capture_output=True, timeout=900
        )
        figures: dict[str, float] = json.loads(told.read_text("utf-8"))
        return figures
