"""When deployed lines ran last and run next, as Prefect knows it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from novad.config import ScheduleSettings, Workspace
from novad.errors import ServiceError
from novad.pipeline.loopback import answers
from novad.pipeline.prefect_client import api_url, prefect_client, workspace_tag
from novad.pipeline.retraining import RETRAIN_FLOW

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

__all__ = ["LineRuns", "deployed_lines", "first_run", "line_runs", "next_by_schedule"]

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
        deployed = deployed_lines(client, RETRAIN_FLOW)
        return {each.name: _runs(client, each) for each in deployed if tag in each.tags}


def next_by_schedule(schedule: ScheduleSettings | None) -> str | None:
    """When a schedule comes round next, UTC."""
    due = schedule.next_run(datetime.now(UTC)) if schedule else None
    return due.isoformat() if due else None


def deployed_lines(client: "SyncPrefectClient", flow_name: str) -> "list[DeploymentResponse]":
    """Deployments of a flow, one per line, of any workspace on this server."""
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.client.schemas.sorting import DeploymentSort

    flow = FlowFilter(name=FlowFilterName(any_=[flow_name]))
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
    last = first_run(client, deployed.id, begun, FlowRunSort.START_TIME_DESC)
    coming = first_run(client, deployed.id, [StateType.SCHEDULED], FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC)
    return LineRuns(
        last_run=_time(last and last.start_time),
        last_state=last.state_name if last else None,
        last_reason=str(last.parameters.get("reason", "by hand")) if last else None,
        next_run=_time(coming and coming.next_scheduled_start_time),
    )


def first_run(
    client: "SyncPrefectClient", deployment: UUID, kinds: list[Any], order: Any, tags: Sequence[str] = ()
) -> "FlowRun | None":
    """The first run of a deployment in one of some kinds of state, with all of ``tags``."""
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        FlowRunFilterTags,
    )

    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds)),
            tags=FlowRunFilterTags(all_=list(tags)) if tags else None,
        ),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        sort=order,
        limit=1,
    )
    return found[0] if found else None


def _time(at: Any) -> str | None:
    return at.astimezone(UTC).isoformat(timespec="seconds") if at else None
