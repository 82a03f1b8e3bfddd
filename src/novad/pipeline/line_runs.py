"""When deployed lines ran last and run next, as Prefect knows it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from novad.config import LineSettings, Workspace
from novad.errors import ServiceError
from novad.pipeline.loopback import answers
from novad.pipeline.prefect_client import api_url, prefect_client, workspace_tag
from novad.pipeline.retraining import RETRAIN_FLOW

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

__all__ = ["LineRuns", "deployed_lines", "line_runs", "next_by_schedule"]

_PAGE = 200


@dataclass(frozen=True)
class LineRuns:
    """What Prefect knows of a deployed line; times are UTC, ISO 8601."""

    last_run: str | None
    """When the latest run began; one that was cancelled does not count."""
    last_state: str | None
    last_reason: str | None
    next_run: str | None


def line_runs(workspace: Workspace) -> dict[str, LineRuns]:
    """Last and next run of every deployed line; empty where no Prefect server is known.

    Raises:
        ServiceError: the server does not answer.
    """
    url = api_url(workspace)
    if url is None:
        return {}
    # Prefect's own client is patient with a server that is down.
    if not answers(f"{url}/health"):
        raise ServiceError(f"Prefect at {url} does not answer")
    tag = workspace_tag(workspace)
    with prefect_client(url) as client:
        return {each.name: _runs(client, each) for each in deployed_lines(client) if tag in each.tags}


def next_by_schedule(settings: LineSettings) -> str | None:
    """When the schedule of a line comes round next, UTC."""
    due = settings.schedule.next_run(datetime.now(UTC)) if settings.schedule else None
    return due.isoformat() if due else None


def deployed_lines(client: "SyncPrefectClient") -> "list[DeploymentResponse]":
    """All lines that any workspace has deployed on this server."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import DeploymentSort

    flow = FlowFilter(name=FlowFilterName(any_=[RETRAIN_FLOW]))
    read: Callable[[int], list[DeploymentResponse]] = lambda start: client.read_deployments(  # noqa: E731
        flow_filter=flow, sort=DeploymentSort.NAME_ASC, limit=_PAGE, offset=start
    )
    found: list[DeploymentResponse] = []
    while page := read(len(found)):
        found += page
    return found


def _runs(client: "SyncPrefectClient", deployed: "DeploymentResponse") -> LineRuns:
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    begun = [StateType.RUNNING, StateType.COMPLETED, StateType.FAILED, StateType.CRASHED]
    last = _first_run(client, deployed, begun, FlowRunSort.START_TIME_DESC)
    coming = _first_run(client, deployed, [StateType.SCHEDULED], FlowRunSort.EXPECTED_START_TIME_ASC)
    return LineRuns(
        last_run=_time(last and last.start_time),
        last_state=last.state_name if last else None,
        last_reason=str(last.parameters.get("reason", "by hand")) if last else None,
        next_run=_time(coming and coming.expected_start_time),
    )


def _first_run(
    client: "SyncPrefectClient", deployed: "DeploymentResponse", kinds: list[Any], order: Any
) -> "FlowRun | None":
    """The first run in one of some kinds of state."""
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )

    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployed.id])),
        sort=order,
        limit=1,
    )
    return found[0] if found else None


def _time(at: Any) -> str | None:
    return at.astimezone(UTC).isoformat(timespec="seconds") if at else None
