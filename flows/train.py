"""Prefect flows: bring product lines up to date, check that nothing is stale, publish what came out."""

import os
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from novad.config import Workspace
from novad.errors import ServiceError
from novad.pipeline.graph import PipelineStage, line_stages, recorded_digests, stale_stages
from novad.pipeline.reproduce import STAGE_THREADS, reproduce
from novad.pipeline.retraining import RETRAIN_FLOW, retrain_line
from novad.pipeline.train import TrainingFailed
from novad.report.page import fresh_page
from novad.tracking import Published, close_stale_runs, publish

# Two stages for the cores of one: each spends half its time on one core, importing and decoding.
RUNNER: Any = ThreadPoolTaskRunner(max_workers=max(2, 2 * (os.cpu_count() or 1) // STAGE_THREADS))


def _outside_failed(_task: Any, _run: Any, state: Any) -> bool:
    """Retry what an outside service failed at; data and settings do not mend themselves."""
    return isinstance(state.result(raise_on_failure=False), ServiceError)


@task(task_run_name="{stage.address}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(root: Path, stage: PipelineStage, force: bool) -> str | None:
    """Bring one DVC stage up to date; its address when it ran, None when nothing had changed."""
    return stage.address if reproduce(Workspace(root), stage.address, force) else None


@task(task_run_name="fresh@{line}", cache_policy=NO_CACHE, persist_result=False)
def assert_fresh(root: Path, line: str) -> None:
    """Fail when DVC still finds a stale stage: an input changed while the line was training."""
    if stale := stale_stages(Workspace(root), [line]):
        raise ServiceError(f"{line}: changed while it was training: {', '.join(stale)}; train it again")


@task(
    task_run_name="publish@{line}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=_outside_failed,
)
def publish_line(root: Path, line: str, flow_run_id: str | None, reason: str) -> Published:
    """Record the line's results in MLflow and register its detector, once per result."""
    workspace = Workspace(root)
    close_stale_runs(workspace, line)
    return publish(workspace, line, flow_run_id, reason, fresh_page, recorded_digests)


@flow(name="novad-train", task_runner=RUNNER, persist_result=False)
def train(
    root: Path, lines: list[str], force: bool = False, reason: str = "by hand"
) -> dict[str, dict[str, Any]]:
    """Train lines side by side; one line's failure does not stop the others.

    Args:
        root: workspace folder.
        lines: names of product lines; the caller holds their locks.
        force: run every stage even when nothing changed.
        reason: why they are trained.
    Returns:
        Per line ``ran`` (addresses of stages that ran) and ``published``.
    Raises:
        TrainingFailed: a line failed; holds the same per line, with ``error`` where there is one.
    """
    stages = line_stages(Workspace(root), lines)
    running: dict[str, Any] = {}
    for stage in stages:
        before: Any = [running[address] for address in stage.upstream]
        running[stage.address] = run_stage.submit(root, stage, force, wait_for=before, return_state=False)
    checking: dict[str, Any] = {}
    publishing: dict[str, Any] = {}
    for line in lines:
        done: Any = [running[stage.address] for stage in stages if stage.line == line]
        checking[line] = assert_fresh.submit(root, line, wait_for=done, return_state=False)
        after: Any = [checking[line]]
        publishing[line] = publish_line.submit(
            root, line, flow_run.id, reason, wait_for=after, return_state=False
        )
    results = _collect(stages, running, checking, publishing)
    _summarise(results)
    if failed := [line for line, result in results.items() if "error" in result]:
        raise TrainingFailed(f"{', '.join(failed)} failed", results)
    return results


@flow(name=RETRAIN_FLOW, flow_run_name="{line}", persist_result=False)
def retrain(
    line: str, reason: str = "by hand", jitter_seconds: int = 0, causes: list[str] | None = None
) -> Any:
    """What `novad deploy` puts on schedules: train one line of the workspace that this process stands in.

    Args:
        line: name of a product line.
        reason: why now.
        jitter_seconds: begin up to so many seconds after the scheduled time.
        causes: keys of what it is trained for, where that is on record; none is named by hand.
    Returns:
        The state that the run ends in, which says what came of it.
    """
    return retrain_line(Workspace.find(), line, reason, jitter_seconds, causes or ())


def _collect(
    stages: list[PipelineStage],
    running: dict[str, Any],
    checking: dict[str, Any],
    publishing: dict[str, Any],
) -> dict[str, dict[str, Any]]:
    progress = create_progress_artifact(0.0, key="training", description="stages and publications done")
    results: dict[str, dict[str, Any]] = {line: {"ran": []} for line in publishing}
    total = len(stages) + len(publishing)
    for count, stage in enumerate(stages, start=1):
        _keep(results[stage.line], running[stage.address], "ran")
        update_progress_artifact(progress, 100 * count / total)  # type: ignore[arg-type]
    for line, result in results.items():
        _keep(result, checking[line], "checked")
        _keep(result, publishing[line], "published")
        if "error" not in result and "published" not in result:
            result["error"] = ServiceError(f"{line}: Prefect ended the flow before the line was published")
    update_progress_artifact(progress, 100.0)  # type: ignore[arg-type]
    return results


def _keep(result: dict[str, Any], future: Any, key: str) -> None:
    """Note what a task gave; one that never started is only a consequence of another's error."""
    future.wait()
    if not future.state.is_final():
        return
    outcome = future.state.result(raise_on_failure=False)
    if isinstance(outcome, BaseException):
        result.setdefault("error", outcome)
    elif key == "ran" and outcome is not None:
        result["ran"].append(outcome)
    elif key == "published":
        result["published"] = outcome


def _summarise(results: dict[str, dict[str, Any]]) -> None:
    rows = [
        {
            "line": line,
            "stages run": len(result["ran"]),
            "version": result["published"].version if "published" in result else "",
            "run": result["published"].run_id if "published" in result else "",
            "error": str(result.get("error", "")),
        }
        for line, result in results.items()
    ]
    create_table_artifact(rows, key="trained-lines", description="Product lines of this run")
