"""Pixel figures of many large maps: time, memory, and what counting in levels costs in exactness."""

import resource
import time

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from benchmarks.inputs import Request
from benchmarks.report import Report
from novad.evaluation.pixels import PixelFigures
from novad.evaluation.summary import KINDS

__all__ = ["measure"]

IMAGES, SIDE, DEFECTS = 260, 640, 10
Case = tuple[NDArray[np.float32], NDArray[np.bool_] | None]


def measure(_: Request) -> Report:
    """One score after the other sees the same maps, as in the evaluate stage."""
    cases = [_case(seed) for seed in range(4)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    collectors = {kind: PixelFigures() for kind in KINDS}
    for number in range(IMAGES):
        for figures in collectors.values():
            figures.add(*cases[number % len(cases)])
    found = [figures.finish() for figures in collectors.values()]
    seconds = time.perf_counter() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    pixels = np.concatenate([heat.ravel() for heat, _ in cases])
    truth = [np.zeros(heat.size, bool) if mask is None else mask.ravel() for heat, mask in cases]
    exact = float(roc_auc_score(np.concatenate(truth), pixels))
    return Report(
        "Pixel figures",
        {"images": IMAGES, "side": SIDE, "scores": len(KINDS)},
        [
            {
                "seconds": round(seconds, 2),
                "MB more at the peak": round(grown, 1),
                "pixel AUROC": found[0]["pixel_auroc"],
                "over all pixels at once": round(exact, 6),
            }
        ],
    )


def _case(seed: int) -> Case:
    """A smooth noisy map; every other one has defects, somewhat higher than the rest."""
    rng = np.random.default_rng(seed)
    heat = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 3).astype(np.float32)
    if seed % 2 == 0:
        return heat, None
    mask = np.zeros((SIDE, SIDE), bool)
    for row, column in rng.integers(0, SIDE - 20, (DEFECTS, 2)):
        mask[row : row + 20, column : column + 20] = True
    heat[mask] += heat.std()
    return heat, mask
