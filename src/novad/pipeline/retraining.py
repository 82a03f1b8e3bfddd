"""Trainings that nobody asks for one by one: a run of a line's deployment, and what is due by its causes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from novad.config import Workspace, line_settings
from novad.errors import LineBusyError, NovadError
from novad.pipeline.causes import due_causes, reason_of
from novad.pipeline.jitter import put_off
from novad.pipeline.prefect_client import prefect_client, required_api_url
from novad.pipeline.train import LineResult, train_lines
from novad.tracking import record_answers

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

__all__ = ["RETRAIN_FLOW", "SCHEDULED", "retrain_line", "train_due"]

RETRAIN_FLOW = "novad-retrain"
SCHEDULED = "schedule"
"""The reason of a run that a schedule starts."""


def retrain_line(
    workspace: Workspace, line: str, reason: str, jitter_seconds: int, causes: Sequence[str] = ()
) -> "State[Any]":
    """Train ``line`` inside a deployed flow run.

    Args:
        causes: keys of what the training answers, if it succeeds.
    Returns:
        Completed with the version; Completed by the name `Unchanged`; or Cancelled where another run holds
        the line, since that one sees what this one would have seen.
    Raises:
        NovadError: why the line has no new version.
        prefect.exceptions.Abort: its share of the jitter has not come.
    """
    from prefect.runtime import flow_run
    from prefect.states import Cancelled

    put_off(workspace, jitter_seconds)
    if reason == SCHEDULED and flow_run.id:
        _answer_overdue(workspace, flow_run.id)
    try:
        [result] = train_lines(workspace, [line], reason=reason)
    except LineBusyError as busy:
        return Cancelled(message=str(busy))
    if result.error is not None:
        raise result.error
    if causes:
        record_answers(workspace, line, causes)
    return _outcome(result)


def train_due(workspace: Workspace, lines: list[str], force: bool, wait: bool) -> list[LineResult]:
    """Train those of ``lines`` for which a cause holds that no training has answered, one after the other.

    Args:
        workspace: of the lines.
        lines: names.
        force: run every stage of those that are due.
        wait: for lines that another run holds.
    Returns:
        One result per line that is due; an error in it does not keep the others from their training.
    Raises:
        ConfigError: an unknown line or wrong settings.
    """
    results = []
    for line in lines:
        line_settings(workspace.params, line)
    for line in lines:
        try:
            due = due_causes(workspace, line)
            if not due:
                continue
            [result] = train_lines(workspace, [line], force, wait, reason_of(due))
            if result.error is None:
                record_answers(workspace, line, [cause.key for cause in due])
        except NovadError as error:
            result = LineResult(line, error=error)
        results.append(result)
    return results


def _outcome(result: LineResult) -> "State[Any]":
    from prefect.states import Completed

    if result.unchanged:
        return Completed(name="Unchanged", message=f"nothing changed since version {result.version}")
    ran = ", ".join(address.partition("@")[0] for address in result.ran) or "no stage"
    return Completed(message=f"version {result.version}; ran: {ran}")


def _answer_overdue(workspace: Workspace, run_id: str) -> None:
    """Cancel scheduled runs of this line that are due as well: this one answers them all.

    They pile up while the worker is busy or off, and each would only find that nothing changed since.
    """
    from prefect.states import Cancelled

    answered: Any = Cancelled(message=f"answered by run {run_id}, which was due as well")
    with prefect_client(required_api_url(workspace)) as client:
        for run in _overdue(client, run_id):
            client.set_flow_run_state(run.id, answered)


def _overdue(client: Any, run_id: str) -> "list[FlowRun]":
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterNextScheduledStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    own = client.read_flow_run(run_id)
    now: Any = datetime.now(UTC)
    due = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[own.deployment_id]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        next_scheduled_start_time=FlowRunFilterNextScheduledStartTime(before_=now),
    )
    found = client.read_flow_runs(flow_run_filter=due)
    return [run for run in found if run.parameters.get("reason") == SCHEDULED]
