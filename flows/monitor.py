"""Prefect flows: watch lines in service for drift; an alarm fails the run, so that Prefect tells of it."""

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from novad.config import Workspace, line_settings, load_lines
from novad.errors import NovadError, RefusedError
from novad.pipeline import watching
from novad.tracking import Monitored, champion_event, post_alarm
from novad.tracking import monitor as judge


@task(task_run_name="watch@{line}", cache_policy=NO_CACHE, persist_result=False)
def watch_line(root: Path, line: str) -> Monitored:
    """The verdict on a line; an alarm is posted to its webhook, where one is named."""
    workspace = Workspace(root)
    settings = line_settings(workspace.params, line).monitor
    found = judge(workspace, line, settings.since)
    if found.alarmed and settings.webhook:
        post_alarm(settings.webhook, found)
    return found


@flow(name="novad-monitor", persist_result=False)
def monitor(root: Path, lines: list[str] | None = None) -> dict[str, Monitored]:
    """Watch lines one after the other; one that cannot be watched does not keep the others from it.

    Args:
        root: workspace folder.
        lines: names of product lines; None for all that have a champion.
    Raises:
        RefusedError: names the lines with an alarm, and those that could not be watched.
    """
    workspace = Workspace(root)
    names = lines or [name for name in load_lines(workspace.params) if champion_event(workspace, name)]
    found: dict[str, Monitored] = {}
    failed: dict[str, str] = {}
    for name in names:
        outcome = watch_line(root, name, return_state=True).result(raise_on_failure=False)
        if isinstance(outcome, Monitored):
            found[name] = outcome
        else:
            failed[name] = str(outcome) if isinstance(outcome, NovadError) else f"fault: {outcome!r}"
    rows = [_row(each) for each in found.values()]
    rows += [{"line": name, "verdict": reason} for name, reason in failed.items()]
    create_table_artifact(rows, key="monitored-lines", description="Drift of lines in service")
    alarms = [f"{name}: drift of {', '.join(each.drifted)}" for name, each in found.items() if each.alarmed]
    if problems := alarms + [f"{name}: {reason}" for name, reason in failed.items()]:
        raise RefusedError("; ".join(problems))
    return found


@flow(name=watching.WATCH_FLOW, flow_run_name="{line}", persist_result=False)
def watch(line: str, jitter_seconds: int = 0) -> Any:
    """What `novad deploy` puts on schedules: watch one line of the workspace that this process stands in.

    Args:
        line: name of a product line.
        jitter_seconds: begin up to so many seconds after the scheduled time.
    Returns:
        The state that the run ends in, which says what was seen and whether a training was started.
    Raises:
        RefusedError: the line drifts.
    """
    return watching.watch_line(Workspace.find(), line, jitter_seconds)


def _row(found: Monitored) -> dict[str, Any]:
    return {
        "line": found.line,
        "verdict": found.verdict,
        "on": ", ".join(found.drifted),
        "since": found.since or "",
        "evidence": f"{found.evidence:.3g}",
        "parts": found.parts,
        "refused": sum(rate.count for name, rate in found.rates.items() if name != "PASS"),
    }
