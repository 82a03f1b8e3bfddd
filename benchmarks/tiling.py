"""What tiles save in memory and cost in time, and how far their maps are from those of the whole image.

Each row is a process of its own: ``python -m benchmarks.tiling SIDE IMAGES TILE TARGET FILE``.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.inputs import ROOT, Request
from benchmarks.report import Report
from novad.config.settings import BUNDLED_ARCHITECTURE, BUNDLED_CHECKPOINT
from novad.images.demo import fabric
from novad.images.demo.texture import Dice, to_pixels
from novad.stages.runner import peak_rss_mb
from novad.vision.backbones import describe_checkpoint, load_backbone
from novad.vision.explainers import BcosExplainer
from novad.vision.familiarity import feature_grids
from novad.vision.novelty import map_step, statistic_maps
from novad.vision.preprocess import images_at_once, to_batch

__all__ = ["measure"]

SIDES, TILES = (2048,), (0, 512, 256)
TARGETS = ("layer2", "layer1+layer2+layer3")
STATISTICS = ("contribution", "weight_norm", "alignment", "colour_residual")


def measure(_: Request) -> Report:
    """Patch features and statistics of the explanation of one batch of large woven fabric."""
    rows = [row for side in SIDES for target in TARGETS for row in _rows(side, target)]
    facts = {"backbone": BUNDLED_ARCHITECTURE, "images": "woven fabric", "statistics": len(STATISTICS)}
    return Report("Tiles against the whole image", facts, rows)


def _rows(side: int, target: str) -> list[dict[str, Any]]:
    images = images_at_once(side)
    rows: list[dict[str, Any]] = []
    whole: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for tile in TILES:
            path = Path(folder) / f"{tile}.safetensors"
            told = _in_a_process(side, images, tile, target, path)
            found = load_file(path)
            whole = whole or {**told, "maps": found}
            rows.append(
                {
                    "side": side,
                    "images": images,
                    "explained": target,
                    "tile": tile or "whole",
                    "peak MB": round(told["peak"]),
                    "beyond weights and images, MB": round(told["peak"] - told["before"]),
                    "of whole": _share(told["peak"] - told["before"], whole["peak"] - whole["before"]),
                    "seconds": round(told["seconds"], 1),
                    "time / whole": round(told["seconds"] / whole["seconds"], 2),
                    "largest difference": max(
                        _apart(found[name], each) for name, each in whole["maps"].items()
                    ),
                }
            )
    return rows


def _apart(found: Tensor, whole: Tensor) -> float:
    """Largest difference, as a share of the whole's range."""
    return float((found - whole).abs().max() / (whole.max() - whole.min()))


def _share(part: float, whole: float) -> float | None:
    """None where an image was too small to be seen in the process's peak."""
    return round(part / whole, 2) if whole else None


def _in_a_process(side: int, images: int, tile: int, target: str, path: Path) -> dict[str, float]:
    arguments = [side, images, tile, target, path, torch.get_num_threads()]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tiling", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told: dict[str, float] = json.loads(done.stdout)
    return told


def _cloth(number: int, side: int) -> NDArray[np.uint8]:
    """Sewn from one small piece: painting a large one takes more memory than what is measured."""
    piece = to_pixels(fabric.paint(Dice(f"tiling/{number}"), None)[0])
    repeats = -(-side // len(piece))
    return np.tile(piece, (repeats, repeats, 1))[:side, :side]


def _run(side: int, images: int, tile: int, target: str, path: Path) -> dict[str, float]:
    """Time and peak memory of one batch; its patch features and statistic maps go into ``path``."""
    checkpoint = ROOT / BUNDLED_CHECKPOINT
    architecture, sha256 = describe_checkpoint(checkpoint)
    explainer = BcosExplainer(load_backbone(architecture, checkpoint, sha256, tile=tile))
    explainer.explain(torch.rand(1, 3, 64, 64), target)  # warm
    batch = to_batch([_cloth(each, side) for each in range(images)], side)
    before = peak_rss_mb()
    started = time.perf_counter()
    explanation = explainer.explain(batch, target)
    maps = statistic_maps(explanation, STATISTICS, map_step(side))
    grids = feature_grids(explanation.features, "sensory")
    told = {"seconds": time.perf_counter() - started, "before": before, "peak": peak_rss_mb()}
    kept = {name: maps[:, at].contiguous() for at, name in enumerate(STATISTICS)}
    save_file({**kept, "features": grids.contiguous()}, path)
    return told


if __name__ == "__main__":
    side, images, tile, target, path, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(json.dumps(_run(int(side), int(images), int(tile), target, Path(path))))
