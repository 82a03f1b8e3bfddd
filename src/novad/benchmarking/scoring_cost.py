"""What scoring costs; a process of its own: ``python -m novad.benchmarking.scoring_cost LINE KIND FILE``."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from novad.config import Workspace
from novad.stages.line import Line
from novad.stages.runner import peak_rss_mb, write_json
from novad.vision import Detector
from novad.vision.models import raw_scores
from novad.vision.pooling import resize_maps
from novad.vision.preprocess import batches, to_batch

__all__ = ["measure"]

BATCH = 8
MOST = 128


def measure(line: Line, kind: str) -> dict[str, float]:
    """Milliseconds per image, from file to score and map, and the peak memory of this process.

    The milliseconds are the median over the batches: what else the machine does moves it little.

    Args:
        line: trained and evaluated.
        kind: ``familiarity``, ``novelty`` or ``hybrid``; the first two run without the other.
    """
    detector = Detector.load(line.output("evaluate", "detector"))
    rows = line.rows("test").head(MOST)
    score = _scorer(detector, kind)
    list(_seconds(score, line.images(rows.head(BATCH))))  # warm
    per_image = median(_seconds(score, line.images(rows)))
    return {"ms_per_image": round(1000 * per_image, 2), "peak_rss_mb": peak_rss_mb()}


def _seconds(score: Callable[[list[Any]], object], images: Iterator[Any]) -> Iterator[float]:
    """Seconds per image of each batch, decoding included."""
    started = time.perf_counter()
    for group in batches(images, BATCH):
        score(group)
        yield (time.perf_counter() - started) / len(group)
        started = time.perf_counter()


def _scorer(detector: Detector, kind: str) -> Callable[[list[Any]], object]:
    """Scores and full-size maps of a batch; maps on coarser grids would be cheaper than others' maps."""
    familiarity, novelty, size = detector.familiarity, detector.novelty, detector.image_size

    def familiarity_alone(group: list[Any]) -> object:
        with torch.inference_mode():
            found = familiarity.score(familiarity.backbone(to_batch(group, size)))
        return _full_size(found.maps, group)

    def novelty_alone(group: list[Any]) -> object:
        images = to_batch(group, size)
        if novelty.remembers:  # That takes the search of the memory too.
            return _full_size(raw_scores(familiarity, novelty, images).novelty_maps, group)
        return _full_size(explained(images), group)

    def explained(images: Tensor) -> Tensor:
        found = novelty.explain(images)
        novelty.score(found.deviations)
        return found.maps

    return {
        "familiarity": familiarity_alone,
        "novelty": novelty_alone,
        "hybrid": lambda group: [each.hybrid_map for each in detector.score(group, BATCH)],
    }[kind]


def _full_size(maps: Tensor, group: list[Any]) -> list[Tensor]:
    return [resize_maps(heat[None], image.shape[:2]) for heat, image in zip(maps, group, strict=True)]


if __name__ == "__main__":
    name, kind, told = sys.argv[1:]
    write_json(Path(told), measure(Line.open(Workspace.find(), name), kind))
