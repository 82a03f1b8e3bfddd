"""Prefect deployments of every product line, kept equal to what ``params.yaml`` says."""

import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from novad.config import LineSettings, ScheduleSettings, Workspace, load_lines
from novad.errors import ConfigError, RefusedError
from novad.pipeline.line_runs import deployed_lines, next_by_schedule
from novad.pipeline.prefect_client import (
    prefect_client,
    required_api_url,
    workspace_identity,
    workspace_tag,
)
from novad.pipeline.retraining import RETRAIN_FLOW, SCHEDULED
from novad.pipeline.watching import WATCH_FLOW

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.responses import DeploymentResponse

__all__ = ["Change", "deploy", "ensure_pool", "pool_name"]

_AT_ONCE = 1
_TRAININGS = "default"
"""The queue that every work pool has."""
_LOOKS = "watching"


@dataclass(frozen=True)
class Change:
    """What ``novad deploy`` did about one deployment of a line."""

    line: str
    work: Literal["training", "watching"]
    change: Literal["created", "updated", "unchanged", "removed"]
    next_run: str | None


@dataclass(frozen=True)
class _Flow:
    """A flow that lines are deployed for."""

    name: str
    work: Literal["training", "watching"]
    entrypoint: str
    queue: str
    parameters: tuple[tuple[str, str], ...] = ()
    """Of runs that the schedule starts."""


_FLOWS = (
    _Flow(RETRAIN_FLOW, "training", "flows/train.py:retrain", _TRAININGS, (("reason", SCHEDULED),)),
    _Flow(WATCH_FLOW, "watching", "flows/monitor.py:watch", _LOOKS),
)


def pool_name(workspace: Workspace) -> str:
    """The work pool of the workspace; its workers train on their own machine."""
    return f"novad-{workspace_identity(workspace)[:12]}"


def deploy(workspace: Workspace, at_once: int | None = None) -> list[Change]:
    """Make Prefect's deployments those of ``params.yaml``; what is so already is not touched.

    Every line has one for its training; one that is watched on a schedule has another for that.

    Args:
        workspace: whose lines.
        at_once: trainings at the same time in this workspace's pool; None leaves what is set, at first 1.
    Raises:
        ConfigError: wrong settings, or a schedule that Prefect does not take.
        RefusedError: a line of that name is deployed by another workspace of the same server.
        ServiceError: no server is known, or it does not answer.
    """
    lines = load_lines(workspace.params)
    wanted = {flow: _wanted_of(workspace, flow, lines) for flow in _FLOWS}
    with prefect_client(required_api_url(workspace)) as client:
        own = {flow: _own(client, workspace, flow, wanted[flow]) for flow in _FLOWS}
        ensure_pool(client, workspace, at_once)
        return [
            change for flow in _FLOWS for change in _apply_all(client, flow, own[flow], wanted[flow], lines)
        ]


def ensure_pool(client: "SyncPrefectClient", workspace: Workspace, at_once: int | None = None) -> None:
    """Make the workspace's work pool where there is none, and set its limit of trainings where one is named.

    Looks at lines have a queue of their own: a training may take hours, and they need not wait for it. So
    the limits are those of queues, and a limit of the whole pool is taken away.
    """
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    name = pool_name(workspace)
    try:
        if client.read_work_pool(name).concurrency_limit is not None:
            client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=None))
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        pool = WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template)
        client.create_work_pool(pool)
    _limit(client, name, _TRAININGS, at_once)
    _limit(client, name, _LOOKS, None)


def _limit(client: "SyncPrefectClient", pool: str, queue: str, at_once: int | None) -> None:
    """How many runs of a queue go on at the same time; without a number what is set stays."""
    from prefect.exceptions import ObjectNotFound

    try:
        found = client.read_work_queue_by_name(queue, pool)
    except ObjectNotFound:
        client.create_work_queue(queue, concurrency_limit=at_once or _AT_ONCE, work_pool_name=pool)
        return
    limit = at_once or found.concurrency_limit or _AT_ONCE
    if limit != found.concurrency_limit:
        client.update_work_queue(found.id, concurrency_limit=limit)


def _own(
    client: "SyncPrefectClient", workspace: Workspace, flow: _Flow, wanted: dict[str, dict[str, Any]]
) -> "dict[str, DeploymentResponse]":
    """What this workspace has deployed, by line.

    Raises:
        RefusedError: another workspace has deployed one of the wanted lines.
    """
    deployed = deployed_lines(client, flow.name)
    own = {each.name: each for each in deployed if workspace_tag(workspace) in each.tags}
    if taken := sorted({each.name for each in deployed if each.name not in own} & set(wanted)):
        raise RefusedError(
            f"{', '.join(taken)}: deployed on this Prefect server by another workspace; rename the line, "
            "or use another server"
        )
    return own


def _apply_all(
    client: "SyncPrefectClient",
    flow: _Flow,
    own: "dict[str, DeploymentResponse]",
    wanted: dict[str, dict[str, Any]],
    lines: dict[str, LineSettings],
) -> list[Change]:
    changes = []
    for line, deployment in wanted.items():
        change = _apply(client, flow, own.get(line), deployment)
        changes.append(Change(line, flow.work, change, next_by_schedule(_schedule_of(flow, lines[line]))))
    for line in sorted(set(own) - set(wanted)):
        client.delete_deployment(own[line].id)
        changes.append(Change(line, flow.work, "removed", None))
    return changes


def _schedule_of(flow: _Flow, settings: LineSettings) -> ScheduleSettings | None:
    return settings.schedule if flow.work == "training" else settings.monitor.schedule


def _wanted_of(
    workspace: Workspace, flow: _Flow, lines: dict[str, LineSettings]
) -> dict[str, dict[str, Any]]:
    """Deployments of a flow, by line: a training may be asked for without a schedule, a look is not."""
    return {
        line: _wanted(workspace, flow, line, _schedule_of(flow, settings))
        for line, settings in lines.items()
        if flow.work == "training" or settings.monitor.schedule
    }


def _wanted(
    workspace: Workspace, flow: _Flow, line: str, schedule: ScheduleSettings | None
) -> dict[str, Any]:
    """The deployment of a line, in the words of Prefect's client."""
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions

    root = str(workspace.root)
    return {
        "name": line,
        "tags": [f"line:{line}", workspace_tag(workspace)],
        "entrypoint": flow.entrypoint,
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": root}}],
        "parameters": {"line": line},
        "enforce_parameter_schema": False,
        "work_pool_name": pool_name(workspace),
        "work_queue_name": flow.queue,
        "job_variables": {
            "command": shlex.join([sys.executable, "-m", "novad.pipeline.flow_process"]),
            "working_dir": root,
            "env": {"NOVAD_WORKSPACE": root},
        },
        # A run looks at all that is there: one that comes while it goes on would do the same work again.
        "concurrency_limit": 1,
        "concurrency_options": ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        "schedules": [_schedule(workspace, flow, line, schedule)] if schedule else [],
        "paused": False,
    }


def _schedule(
    workspace: Workspace, flow: _Flow, line: str, told: ScheduleSettings
) -> "DeploymentScheduleCreate":
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    try:
        cron = CronSchedule(cron=told.cron, timezone=told.timezone)
    except ValueError:
        key = "schedule" if flow.work == "training" else "monitor.schedule"
        where = f"{workspace.params}: lines.{line}.{key}"
        raise ConfigError(f"{where}: Prefect does not know '{told.cron}' in '{told.timezone}'") from None
    parameters = {**dict(flow.parameters), "jitter_seconds": told.jitter_seconds}
    return DeploymentScheduleCreate(
        schedule=cron, active=not told.paused, parameters=parameters, slug="params"
    )


def _apply(
    client: "SyncPrefectClient", flow: _Flow, found: "DeploymentResponse | None", wanted: dict[str, Any]
) -> Literal["created", "updated", "unchanged"]:
    """Write a deployment unless it is as wanted: a new one loses the runs that are scheduled."""
    if found is not None and _as_found(found) == _comparable(wanted):
        return "unchanged"
    client.create_deployment(client.create_flow_from_name(flow.name), **wanted)
    return "created" if found is None else "updated"


def _as_found(found: "DeploymentResponse") -> dict[str, Any]:
    limit = found.global_concurrency_limit
    return _comparable(
        {
            "name": found.name,
            "tags": found.tags,
            "entrypoint": found.entrypoint,
            "pull_steps": found.pull_steps,
            "parameters": found.parameters,
            "enforce_parameter_schema": found.enforce_parameter_schema,
            "work_pool_name": found.work_pool_name,
            "work_queue_name": found.work_queue_name,
            "job_variables": found.job_variables,
            "concurrency_limit": limit.limit if limit else None,
            "concurrency_options": found.concurrency_options,
            "schedules": found.schedules,
            "paused": found.paused,
        }
    )


def _comparable(values: dict[str, Any]) -> dict[str, Any]:
    """Schedules and limits as plain values, without what Prefect adds to them."""
    options = values["concurrency_options"]
    return values | {
        "tags": sorted(values["tags"]),
        "concurrency_options": options.collision_strategy if options else None,
        "schedules": [
            (each.schedule.cron, each.schedule.timezone, each.active, each.parameters, each.slug)
            for each in values["schedules"]
        ],
    }
