"""Are defects of a thousandth of a large image found? Demo products, scaled down and in tiles."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.inputs import Request, bundled_settings
from benchmarks.report import Report
from novad.benchmarking.temporary_line import train_temporary_line
from novad.config import LineSettings
from novad.config.settings import BUNDLED_ARCHITECTURE
from novad.evaluation.metrics import image_auroc
from novad.evaluation.summary import KINDS
from novad.images.demo import fabric, metal
from novad.images.demo.texture import Dice, to_pixels
from novad.stages.line import Line
from novad.stages.runner import read_json

__all__ = ["measure", "write_large_line"]

PRODUCTS: dict[str, ModuleType] = {"brushed-metal": metal, "woven-fabric": fabric}
SIDE = 1024
TRAIN, TEST_GOOD, PER_DEFECT = 32, 16, 4
# Side of the network's input, and of its tiles: the default, and every pixel.
SIZES = ((224, 0), (1024, 512))


def measure(_: Request) -> Report:
    """Train temporary lines; figures are of their test splits alone."""
    rows = [row for name in PRODUCTS for row in _product_rows(name)]
    facts = {
        "side of the images": SIDE,
        "backbone": BUNDLED_ARCHITECTURE,
        "normals in train": TRAIN,
        "normal and per defect type in test and tuning": f"{TEST_GOOD} and {PER_DEFECT}",
        "explained": "layer2",
    }
    return Report("Small defects of large images", facts, rows)


def write_large_line(name: str, folder: Path) -> dict[str, float]:
    """Write a demo product in MVTec layout; the median share of an image that each defect type takes."""
    product, shares = PRODUCTS[name], defaultdict[str, list[float]](list)
    told: list[tuple[str, str | None, int]] = [("train/good", None, TRAIN), ("test/good", None, TEST_GOOD)]
    told += [(f"test/{defect}", defect, PER_DEFECT) for defect in product.DEFECTS]
    for place, defect, count in told:
        (folder / place).mkdir(parents=True)
        for index in range(count):
            values, mask = product.paint(Dice(f"large-{name}/{place}/{index}"), defect, SIDE)
            Image.fromarray(to_pixels(values)).save(folder / place / f"{index:03d}.png")
            if defect is not None:
                truth = folder / "ground_truth" / defect
                truth.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(truth / f"{index:03d}_mask.png")
                shares[defect].append(float(mask.mean()))
    return {defect: median(each) for defect, each in shares.items()}


def _product_rows(name: str) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as made:
        shares = write_large_line(name, Path(made) / "images")
        for size, tile in SIZES:
            workspace = Path(made) / f"workspace-{size}-{tile}"
            workspace.mkdir()
            settings = _settings(Path(made) / "images", size, tile)
            yield from _rows(name, train_temporary_line(workspace, settings, lambda _: None), shares)


def _settings(data: Path, size: int, tile: int) -> LineSettings:
    network = bundled_settings(size, tile)
    return LineSettings.model_validate(
        {
            "data": str(data),
            "layout": "mvtec",
            "backbone": network,
            "explainer": {"backbone": network},
            "calibrate_explainer": {"targets": ["layer2"], "max_normals": 16},
            "evaluate": {"heatmaps": 0},
        }
    )


def _rows(name: str, line: Line, shares: dict[str, float]) -> Iterator[dict[str, Any]]:
    told = read_json(line.output("evaluate", "metrics.json"))
    scores = pd.read_parquet(line.output("evaluate", "scores.parquet"))
    network = line.settings.backbone
    for kind in KINDS:
        low, high = told["scores"][kind]["ci95"]["image_auroc"]
        yield {
            "product": name,
            "input": network.image_size,
            "tile": network.tile or "whole",
            "score": kind,
            "AUROC": f"{told['scores'][kind]['image_auroc']:.3f} ({low:.3f} to {high:.3f})",
            "AUROC by type (share of the image)": _by_type(scores, kind, shares),
            "AUPRO": told["scores"][kind]["aupro"],
            "pointing game": told["explanation"]["pointing_game"][kind],
        }


def _by_type(scores: pd.DataFrame, kind: str, shares: dict[str, float]) -> str:
    good = scores[scores["label"] == 0]
    found = []
    for defect, bad in scores[scores["label"] == 1].groupby("defect_type"):
        both = pd.concat([good, bad])
        auroc = image_auroc(both[kind].to_numpy(), both["label"].to_numpy())
        found.append(f"{defect} {auroc:.2f} ({shares[str(defect)]:.3%})")
    return ", ".join(found)
