"""Run the benchmarks; one that lacks its input says so and is skipped."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import (
    contamination,
    coreset,
    coreset_scale,
    detection,
    drift,
    drift_retrained,
    explainers,
    few_anomalies,
    few_normals,
    incremental_bank,
    interval_coverage,
    maps,
    parts,
    pixel_figures,
    readings,
    schedules,
    search_scale,
    second_implementation,
    selection,
    semantic,
    service,
    small_defects,
    stage_cost,
    stem,
    streaming,
    thresholds,
    tiled_scores,
    tiling,
    usual_distances,
)
from benchmarks.inputs import Request
from benchmarks.report import MissingInput, Report
from novad.errors import NovadError, exit_code
from novad.images.demo import DEMO_LINES
from novad.vision.explainers import EXPLAINERS

ROOT = Path(__file__).parents[1]
BENCHMARKS: dict[str, Callable[[Request], Report]] = {
    "contamination": contamination.measure,
    "coreset": coreset.measure,
    "coreset_scale": coreset_scale.measure,
    "few_anomalies": few_anomalies.measure,
    "few_normals": few_normals.measure,
    "incremental_bank": incremental_bank.measure,
    "stage_cost": stage_cost.measure,
    "maps": maps.measure,
    "stem": stem.measure,
    "streaming": streaming.measure,
    "detection": detection.measure,
    "drift": drift.measure,
    "drift_retrained": drift_retrained.measure,
    "search_scale": search_scale.measure,
    "selection": selection.measure,
    "explainers": explainers.measure,
    "interval_coverage": interval_coverage.measure,
    "semantic": semantic.measure,
    "service": service.measure,
    "small_defects": small_defects.measure,
    "tiling": tiling.measure,
    "tiled_scores": tiled_scores.measure,
    "parts": parts.measure,
    "pixel_figures": pixel_figures.measure,
    "readings": readings.measure,
    "thresholds": thresholds.measure,
    "usual_distances": usual_distances.measure,
    "schedules": schedules.measure,
    "second_implementation": second_implementation.measure,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write what was asked for; exit status as the command line's."""
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    told = {name: value for name, value in vars(asked).items() if name in Request.__dataclass_fields__}
    request = Request(**told)
    for name in asked.benchmarks or BENCHMARKS:
        try:
            report = BENCHMARKS[name](request)
        except MissingInput as missing:
            print(f"{name}: skipped: {missing}", file=sys.stderr)
            continue
        except NovadError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return exit_code(error)
        report.write(asked.results / name)
        print(report.markdown())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "benchmarks",
        nargs="*",
        type=_known,
        metavar="NAME",
        help=f"{', '.join(BENCHMARKS)}; without any, all",
    )
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared/data/elpv-mono", help="MVTec layout"
    )
    parser.add_argument("--checkpoint", type=Path, help="backbone to measure; else the bundled one")
    parser.add_argument("--images", type=int, default=0, help="most training images for a bank; 0: all")
    parser.add_argument("--coreset-images", type=int, default=96, help="the same where exact greedy runs too")
    parser.add_argument("--scored", type=int, default=64, help="images that scoring is timed on")
    parser.add_argument(
        "--batch", type=int, default=8, help="images per batch in `stage_cost` of trained lines"
    )
    parser.add_argument("--size", type=int, default=224, help="side of the network's input, in pixels")
    parser.add_argument("--artifacts", type=Path, default=ROOT / "artifacts", help="of trained lines")
    parser.add_argument("--anomalib", type=Path, help="interpreter of an environment that has anomalib")
    parser.add_argument(
        "--methods", type=_listed, default=(), metavar="NAME,NAME", help="explainers to compare; all"
    )
    parser.add_argument(
        "--lines",
        type=_demo_lines,
        default=(),
        metavar="LINE,LINE",
        help="that `drift_retrained` trains; none skips it",
    )
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many counts")
    parser.add_argument("--minutes", type=int, default=0, help="that `schedules` runs; 0 skips it")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    return parser


def _listed(names: str) -> tuple[str, ...]:
    told = tuple(names.split(","))
    if unknown := [name for name in told if name not in EXPLAINERS]:
        raise argparse.ArgumentTypeError(f"no explainer '{unknown[0]}'; there are {', '.join(EXPLAINERS)}")
    return told


def _demo_lines(names: str) -> tuple[str, ...]:
    told = tuple(names.split(","))
    if unknown := [name for name in told if name not in DEMO_LINES]:
        raise argparse.ArgumentTypeError(f"no demo line '{unknown[0]}'; there are {', '.join(DEMO_LINES)}")
    return told


def _known(name: str) -> str:
    if name not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"no benchmark '{name}'; there are {', '.join(BENCHMARKS)}")
    return name


if __name__ == "__main__":
    sys.exit(main())
