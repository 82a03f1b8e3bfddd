"""Six product lines on short schedules, one worker: is each trained once, does anything stay?"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from benchmarks.inputs import Request
from benchmarks.report import MissingInput, Report
from novad.config import LineSettings, ScheduleSettings, Workspace, add_line, load_lines
from novad.pipeline.demo import prepare_workspace
from novad.pipeline.deployments import deploy
from novad.pipeline.prefect_client import api_url, prefect_client
from novad.tracking import publications

__all__ = ["measure"]

LINES = 6
SIDE = 64
CRON = "* * * * *"
_PAGE = 200


def measure(request: Request) -> Report:
    """Run the demo lines, each twice under two names and at a small size, on a cron of every minute.

    Raises:
        MissingInput: no duration was named.
    """
    if not request.minutes:
        raise MissingInput("name how long it may take: --minutes 10")
    with tempfile.TemporaryDirectory() as folder:
        workspace = _workspace(Path(folder) / "plant")
        command = [sys.executable, "-c", "from novad.cli import main; main()", "up"]
        environment = {**os.environ, "NOVAD_WORKSPACE": str(workspace.root)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as up:
            try:
                _wait_until_ready(up)
                deploy(workspace)
                time.sleep(60 * request.minutes)
                runs = _runs(workspace)
                started = [psutil.Process(up.pid), *psutil.Process(up.pid).children(recursive=True)]
            finally:
                up.terminate()
        left = sum(process.is_running() for process in started)
        logs = [path.read_text("utf-8", "replace") for path in workspace.state.glob("logs/*.log*")]
        rows = [_row(workspace, line, runs[line]) for line in sorted(runs)]
    conditions = {
        "minutes": request.minutes,
        "cron": CRON,
        "image size": SIDE,
        "at once": 1,
        "processes left after the end": left,
        "database is locked, in all logs": sum(text.count("database is locked") for text in logs),
    }
    return Report("Lines on short schedules", conditions, rows)


def _workspace(root: Path) -> Workspace:
    workspace = prepare_workspace(root)
    settings = load_lines(workspace.params)
    workspace.params.write_text("lines: {}\n", "utf-8")
    for number in range(LINES):
        name = list(settings)[number % len(settings)]
        add_line(workspace.params, f"{name}-{number}", _small(settings[name]))
    return workspace


def _small(settings: LineSettings) -> LineSettings:
    small = {"image_size": SIDE}
    explainer = settings.explainer.model_copy(
        update={"backbone": settings.explainer.backbone.model_copy(update=small)}
    )
    changes = {
        "backbone": settings.backbone.model_copy(update=small),
        "explainer": explainer,
        "schedule": ScheduleSettings(cron=CRON),
    }
    return settings.model_copy(update=changes)


def _wait_until_ready(up: "subprocess.Popen[str]") -> None:
    for line in up.stdout or ():
        if line.startswith("console"):
            return
    raise RuntimeError(f"novad up ended with status {up.wait()}")


def _runs(workspace: Workspace) -> dict[str, list[Any]]:
    """Every run of every line that was due by now, oldest first."""
    url = api_url(workspace)
    if url is None:
        raise RuntimeError("novad up has ended")
    found: list[Any] = []
    with prefect_client(url) as client:
        names = {each.id: each.name for each in client.read_deployments()}
        while page := client.read_flow_runs(limit=_PAGE, offset=len(found)):
            found += page
    due = [run for run in found if run.deployment_id and run.expected_start_time.timestamp() < time.time()]
    due.sort(key=lambda run: run.expected_start_time)
    return {name: [run for run in due if run.deployment_id == key] for key, name in names.items()}


def _row(workspace: Workspace, line: str, runs: Sequence[Any]) -> dict[str, Any]:
    began = [run for run in runs if run.start_time and run.state_name != "Cancelled"]
    unchanged = [run.total_run_time.total_seconds() for run in began if run.state_name == "Unchanged"]
    trained = [run.total_run_time.total_seconds() for run in began if run.state_name == "Completed"]
    answered = [run for run in runs if run.state_name == "Cancelled"]
    return {
        "line": line,
        "due": len(runs),
        "trained": len(trained),
        "unchanged": len(unchanged),
        "answered by another": len(answered),
        "waiting or running": sum(not run.state.is_final() for run in runs),
        "failed": sum(run.state_name in ("Failed", "Crashed") for run in runs),
        "at the same time": _overlaps(began),
        "versions": len(publications(workspace, line)),
        "seconds to train": trained[0] if trained else None,
        "seconds unchanged, median": statistics.median(unchanged) if unchanged else None,
    }


def _overlaps(runs: Sequence[Any]) -> int:
    """Runs of one line that began before the one before them had ended."""
    ordered = sorted(runs, key=lambda run: run.start_time)
    return sum(
        before.end_time is None or after.start_time < before.end_time for before, after in pairwise(ordered)
    )
