"""Maps of defects that nobody learned from: of the memory, of appearance, and learned from other masks."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs import Request, rows_of_lines
from benchmarks.report import Report
from novad.evaluation.explanation import pointing_game
from novad.evaluation.pixels import PixelFigures
from novad.stages.line import Line
from novad.stages.map_weight import map_weight
from novad.stages.masked_images import MaskedImages, masked_images, sound_images
from novad.stages.patch_lessons import LearnedMap, learn_maps
from novad.vision import Detector
from novad.vision.maps import fit_map_scale, fuse_maps
from novad.vision.models import deviations_of_patches
from novad.vision.patch_evidence import LOOKS
from novad.vision.pooling import resize_maps

__all__ = ["measure"]


def measure(request: Request) -> Report:
    """Localisation on masked anomalies of the tuning split, on every trained line that has some.

    Raises:
        MissingInput: there is no such line.
    """
    rows = rows_of_lines(request, _rows, "masked anomalies and knows their appearance")
    return Report(
        "Maps: masked anomalies of the tuning split, none of which taught its own map",
        {
            "the test split is": "not opened",
            "weight of novelty in a hybrid map": "by pixel AUROC on the same images",
        },
        rows,
    )


def _rows(line: Line) -> Iterator[dict[str, Any]]:
    masked, detector = masked_images(line), Detector.load(line.output("evaluate", "detector"))
    familiarity, appearance = detector.familiarity, detector.novelty.appearance
    sound = list(sound_images(line))
    if masked is None or appearance is None or not sound:
        return
    look = partial(deviations_of_patches, familiarity, appearance)
    (drawn, seen), (usually, usual) = (
        map(torch.cat, zip(*map(look, some), strict=True)) for some in (masked.images.split(1), sound)
    )
    maps = {"appearance": (seen[:, LOOKS], usual[:, LOOKS])}
    for learned in learn_maps(list(seen.half()), masked, list(usual.half()), 1):
        maps |= _learned(learned, usual, len(masked.images))
    known = fit_map_scale(usually)(drawn)
    yield {"line": line.name, "map": "familiarity", "hybrid": False, **_figures(known, masked)}
    for name, (novel, normal) in maps.items():
        calibrated = fit_map_scale(normal)(novel)
        yield {"line": line.name, "map": name, "hybrid": False, **_figures(calibrated, masked)}
        fused = fuse_maps(known, calibrated, map_weight(known, calibrated, masked.masks))["hybrid"]
        yield {"line": line.name, "map": name, "hybrid": True, **_figures(fused, masked)}


def _learned(learned: LearnedMap, usual: Tensor, images: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Maps of the images by what other images teach, and other types if there are any; those of normals."""
    parts, normal = learned.maps.split(images), learned.evidence(usual)
    return {
        f"learned from other {kind}, ridge {learned.ridge:g}": (part, normal)
        for kind, part in zip(("images", "types"), parts, strict=False)
    }


def _figures(maps: Tensor, masked: MaskedImages) -> dict[str, float]:
    figures, hits = PixelFigures(), []
    size = (masked.masks.shape[-2], masked.masks.shape[-1])
    for heat, mask in zip(resize_maps(maps, size).numpy(), masked.masks.numpy(), strict=True):
        figures.add(heat, mask)
        if mask.any():
            hits.append(pointing_game(heat, mask))
    found = figures.finish()
    return {
        "AUPRO": round(found["aupro"] or 0.0, 3),
        "pixel AUROC": round(found["pixel_auroc"] or 0.0, 3),
        "pointing": round(float(np.mean(hits)), 2),
    }
