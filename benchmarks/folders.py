"""``novad bench`` on every folder of images at hand: real ones beside the checkout, else the demo lines.

Usage: python -m benchmarks.folders [--anomalib PYTHON] [any option of novad bench]
"""

import argparse
import subprocess
import sys
from pathlib import Path

from novad.images import make_demo_lines

__all__ = ["found", "main"]

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
WEIGHTS = "weights/mobilenetv2_100.imagenet1k.safetensors"
REAL = ("elpv-mono", "deeppcb-20085")
RESULTS = ROOT / "benchmarks/results"


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark after the other; the highest of their exit statuses."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folders", description=__doc__.splitlines()[0])
    parser.add_argument("--anomalib", type=Path, help="interpreter of an environment that has anomalib")
    asked, options = parser.parse_known_args(arguments)
    if asked.anomalib is not None:
        options += ["--anomalib", str(asked.anomalib.absolute())]
        weights = SHARED / WEIGHTS
        if weights.is_file() and "--anomalib-weights" not in options:
            options += ["--anomalib-weights", str(weights)]
    statuses = [_bench(folder, options) for folder in found()]
    return max(statuses, default=0)


def found() -> list[Path]:
    """Folders in MVTec layout: real images where they are, else the demo lines, made if need be."""
    real = [SHARED / "data" / name for name in REAL if (SHARED / "data" / name).is_dir()]
    if real:
        return real
    demo = ROOT / "data"
    if not demo.is_dir():
        demo = RESULTS / "demo-images"
        make_demo_lines(demo)
    return sorted(path for path in demo.iterdir() if path.is_dir())


def _bench(folder: Path, options: list[str]) -> int:
    out = RESULTS / f"bench-{folder.name}"
    command = [Path(sys.executable).with_name("novad"), "bench", folder, "--layout", "mvtec", "--out", out]
    return subprocess.run([*command, *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
