"""A product line for the length of a benchmark: the stages as they are, no DVC, no Prefect, no MLflow."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from novad.config import LineSettings, Workspace, add_line
from novad.errors import ConfigError, NovadError, RefusedError, ServiceError
from novad.orphans import end_with_parent
from novad.stages.line import Line
from novad.stages.runner import read_json

__all__ = ["LINE", "STAGES", "novad_costs", "train_temporary_line"]

LINE = "bench"
STAGES = ("validate", "memory_bank", "calibrate_explainer", "tune_fusion", "evaluate")
# What a score needs to have been fitted; checking the images (validate) belongs to none of them. Novelty's
# calibration reads the memory bank.
FITTED_BY = {
    "familiarity": ("memory_bank",),
    "novelty": ("memory_bank", "calibrate_explainer"),
    "hybrid": ("memory_bank", "calibrate_explainer", "tune_fusion"),
}
_ERRORS: dict[int, type[NovadError]] = {1: RefusedError, 2: ConfigError, 3: ServiceError}


def train_temporary_line(folder: Path, settings: LineSettings, step: Callable[[str], object]) -> Line:
    """Run every stage in a process of its own; the images stay where they are.

    Args:
        folder: without a line; becomes the workspace.
        settings: of the line; ``data`` and the checkpoints are absolute paths.
        step: told the name of each stage before it runs.
    Raises:
        NovadError: of the kind that the stage ended with; the message is the stage's own.
        RuntimeError: the stage has a fault, or was killed.
    """
    workspace = Workspace(folder)
    workspace.params.write_text("lines:\n", "utf-8")
    (folder / "dvc.yaml").write_text("stages: {}\n", "utf-8")
    add_line(workspace.params, LINE, settings)
    for stage in STAGES:
        step(stage)
        run_module(workspace, f"novad.stages.{stage}", LINE)
    return Line.open(workspace, LINE)


def novad_costs(line: Line, step: Callable[[str], object]) -> dict[str, dict[str, float]]:
    """Seconds of fitting, milliseconds per image and peak memory of each score, apart from the others.

    Memory is that of the largest process: of the stages that fit the score, or the one that scores with it.
    """
    stages = {stage: read_json(line.output(stage, "cost.json")) for stage in STAGES}
    costs = {}
    for kind, fitted_by in FITTED_BY.items():
        step(f"time of {kind}")
        told = line.workspace.root / f"{kind}-cost.json"
        run_module(line.workspace, "novad.benchmarking.scoring_cost", LINE, kind, str(told))
        scoring = read_json(told)
        costs[kind] = {
            "fit_seconds": round(sum(stages[stage]["seconds"] for stage in fitted_by), 2),
            "ms_per_image": scoring["ms_per_image"],
            "peak_rss_mb": max(scoring["peak_rss_mb"], *(stages[each]["peak_rss_mb"] for each in fitted_by)),
            "scoring_rss_mb": scoring["peak_rss_mb"],
        }
    return costs


def run_module(workspace: Workspace, module: str, *arguments: str) -> None:
    """Run one of novad's modules for the workspace; its error becomes ours.

    Raises:
        NovadError: what the module told last, under its own name, before it ended with the code of that kind.
        RuntimeError: it ended otherwise.
    """
    environment: dict[str, Any] = {**os.environ, "NOVAD_WORKSPACE": str(workspace.root)}
    # -P: a benchmark starts in whatever folder, and a file grp.py there is not Python's own.
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        env=environment, capture_output=True, text=True, check=False, preexec_fn=end_with_parent,
    )  # fmt: skip
    if done.returncode == 0:
        return
    told = done.stderr.strip()
    name = module.rpartition(".")[2]
    _, own, message = f"\n{told}".rpartition(f"\n{name}: ")
    # A traceback may stand before its own words, for the log: of a full disk, say. One alone is a fault.
    if own and done.returncode in _ERRORS:
        raise _ERRORS[done.returncode](f"{name}: {message}")
    raise RuntimeError(f"{module} ended with {done.returncode}: {told[-2000:]}")
