"""One look at a line in service: is it drifting, and is there a cause to train it again?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from novad.config import Workspace, line_settings
from novad.errors import RefusedError
from novad.pipeline.causes import Cause, due_causes, reason_of
from novad.pipeline.jitter import put_off
from novad.pipeline.line_runs import first_run
from novad.pipeline.prefect_client import prefect_client, required_api_url
from novad.pipeline.retraining import RETRAIN_FLOW
from novad.tracking import Monitored, champion_event, monitor, post_alarm

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State

__all__ = ["WATCH_FLOW", "start_training", "watch_line"]

WATCH_FLOW = "novad-watch"


def watch_line(workspace: Workspace, line: str, jitter_seconds: int = 0) -> "State[Any]":
    """Monitor ``line``, start its deployed training where a cause is due, tell of an alarm.

    Returns:
        Completed, which says what was found; by the name `NoChampion` where nothing is in service.
    Raises:
        RefusedError: the line drifts.
        NovadError: it cannot be watched, a training cannot be started, or the webhook failed.
        prefect.exceptions.Abort: its share of the jitter has not come.
    """
    from prefect.states import Completed

    put_off(workspace, jitter_seconds)
    if champion_event(workspace, line) is None:
        return Completed(name="NoChampion", message=f"{line} has no champion yet: nothing to watch")
    settings = line_settings(workspace.params, line).monitor
    found = monitor(workspace, line, settings.since)
    try:
        due = due_causes(workspace, line, found)
        if due:
            start_training(workspace, line, due)
    finally:
        # Neither of the two keeps the other from people's notice.
        if found.alarmed and settings.webhook:
            post_alarm(settings.webhook, found)
    return _outcome(found, due)


def _outcome(found: Monitored, due: list[Cause]) -> "State[Any]":
    from prefect.states import Completed

    training = f"; training for {reason_of(due)}" if due else ""
    if found.alarmed:
        raise RefusedError(f"{found.line}: drift of {', '.join(found.drifted)}{training}")
    return Completed(message=f"quiet on {found.parts} parts{training}")


def start_training(workspace: Workspace, line: str, due: Sequence[Cause]) -> "FlowRun":
    """Ask for a run of the line's training deployment, one for these causes until it ends.

    One that waits or runs is not asked for again; one that ended without an answer is followed by another.

    Returns:
        The run, new or under way.
    Raises:
        ServiceError: no server is known or it does not answer, or the line is not deployed.
    """
    from prefect.client.schemas.objects import TERMINAL_STATES
    from prefect.client.schemas.sorting import FlowRunSort

    url = required_api_url(workspace)
    keys = [cause.key for cause in due]
    tags = [f"cause:{key}" for key in keys]
    with prefect_client(url) as client:
        deployment = client.read_deployment_by_name(f"{RETRAIN_FLOW}/{line}").id
        ended = first_run(client, deployment, list(TERMINAL_STATES), FlowRunSort.END_TIME_DESC, tags)
        return client.create_flow_run_from_deployment(
            deployment,
            parameters={"reason": reason_of(list(due)), "causes": keys},
            tags=tags,
            idempotency_key=f"{deployment} {' '.join(keys)} after {ended.id if ended else 'none'}",
        )
