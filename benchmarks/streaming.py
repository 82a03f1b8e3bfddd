"""Peak memory of building a bank from a small and from a large folder: does it grow with the images?"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.inputs import Request, bundled_settings
from benchmarks.report import Report
from novad.config import (
    ExplainerSettings,
    LineSettings,
    MemoryBankSettings,
    Workspace,
    add_line,
)
from novad.images import build_manifest, discover, write_manifest
from novad.stages.runner import read_json

__all__ = ["measure"]

FOLDERS = (1_000, 10_000)
SIDE, INPUT = 64, 64
# Both folders have more patches than that: 64 of each image.
MAX_PATCHES = 20_000
LINE = "streamed"


def measure(request: Request) -> Report:
    """Run the stage in a process of its own for each folder of images of noise."""
    rows: list[dict[str, Any]] = []
    for images in FOLDERS:
        with tempfile.TemporaryDirectory() as folder:
            workspace = _workspace(Path(folder), images)
            subprocess.run(
                [sys.executable, "-m", "novad.stages.memory_bank", LINE],
                cwd=folder,
                check=True,
                capture_output=True,
            )
            cost = read_json(workspace.artifacts(LINE, "memory_bank") / "cost.json")
            told = read_json(workspace.artifacts(LINE, "memory_bank") / "bank.json")
        rows.append(
            {
                "images": images,
                "patches kept": told["estimate"]["patches"],
                "vectors": told["vectors"],
                "estimate, MiB": told["estimate"]["megabytes"],
                "seconds": cost["seconds"],
                "peak memory, MiB": cost["peak_rss_mb"],
            }
        )
        rows[-1]["of the smallest"] = round(cost["peak_rss_mb"] / rows[0]["peak memory, MiB"], 3)
    return Report(
        "Memory as the folder grows", {"side": SIDE, "input": INPUT, "max_patches": MAX_PATCHES}, rows
    )


def _workspace(root: Path, images: int) -> Workspace:
    """A line whose images all go into the bank; the data gate is left out, for it looks at all pairs."""
    (root / "params.yaml").write_text("lines: {}\n", "utf-8")
    (root / "dvc.yaml").write_text("stages: {}\n", "utf-8")
    workspace, folder = Workspace(root), root / "data/train/good"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(images):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06}.png", compress_level=0)
    add_line(workspace.params, LINE, _settings())
    (root / "data/test/good").mkdir(parents=True)
    samples = discover(root / "data", "mvtec")
    manifest: pd.DataFrame = build_manifest(root / "data", samples, SIDE**2)
    manifest["split"] = "bank"
    out = workspace.artifacts(LINE, "validate")
    out.mkdir(parents=True)
    write_manifest(manifest, out / "manifest.parquet")
    return workspace


def _settings() -> LineSettings:
    backbone = bundled_settings(INPUT)
    return LineSettings(
        data="data",
        layout="mvtec",
        backbone=backbone,
        memory_bank=MemoryBankSettings(max_patches=MAX_PATCHES, max_vectors=1000),
        explainer=ExplainerSettings(backbone=backbone),
    )
