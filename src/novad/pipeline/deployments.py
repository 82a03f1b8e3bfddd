"""One Prefect deployment per product line, kept equal to what ``params.yaml`` says."""

import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from novad.config import LineSettings, ScheduleSettings, Workspace, load_lines
from novad.errors import ConfigError, RefusedError, ServiceError
from novad.pipeline.line_runs import deployed_lines, next_by_schedule
from novad.pipeline.prefect_client import api_url, prefect_client, workspace_identity, workspace_tag
from novad.pipeline.retraining import RETRAIN_FLOW, SCHEDULED

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.responses import DeploymentResponse

__all__ = ["Change", "deploy", "ensure_pool", "pool_name"]

_AT_ONCE = 1


@dataclass(frozen=True)
class Change:
    """What ``novad deploy`` did about one line."""

    line: str
    change: Literal["created", "updated", "unchanged", "removed"]
    next_run: str | None


def pool_name(workspace: Workspace) -> str:
    """The work pool of the workspace; its workers train on their own machine."""
    return f"novad-{workspace_identity(workspace)[:12]}"


def deploy(workspace: Workspace, at_once: int | None = None) -> list[Change]:
    """Make Prefect's deployments those of ``params.yaml``; what is so already is not touched.

    Args:
        workspace: whose lines.
        at_once: trainings at the same time in this workspace's pool; None leaves what is set, at first 1.
    Raises:
        ConfigError: wrong settings, or a schedule that Prefect does not take.
        RefusedError: a line of that name is deployed by another workspace of the same server.
        ServiceError: no server is known, or it does not answer.
    """
    lines = load_lines(workspace.params)
    wanted = {line: _wanted(workspace, line, settings) for line, settings in lines.items()}
    with prefect_client(_required_url(workspace)) as client:
        deployed = deployed_lines(client)
        own = {each.name: each for each in deployed if workspace_tag(workspace) in each.tags}
        if taken := sorted({each.name for each in deployed if each.name not in own} & set(lines)):
            raise RefusedError(
                f"{', '.join(taken)}: deployed on this Prefect server by another workspace; rename the line, "
                "or use another server"
            )
        ensure_pool(client, workspace, at_once)
        changes = {line: _apply(client, own.get(line), wanted[line]) for line in lines}
        gone = [own[line] for line in sorted(set(own) - set(lines))]
        for each in gone:
            client.delete_deployment(each.id)
    return [
        *(Change(line, changes[line], next_by_schedule(settings)) for line, settings in lines.items()),
        *(Change(each.name, "removed", None) for each in gone),
    ]


def ensure_pool(client: "SyncPrefectClient", workspace: Workspace, at_once: int | None = None) -> None:
    """Make the workspace's work pool where there is none, and set its limit where one is named."""
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    name = pool_name(workspace)
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        limit = at_once or _AT_ONCE
        pool = WorkPoolCreate(
            name=name, type=ProcessWorker.type, base_job_template=template, concurrency_limit=limit
        )
        client.create_work_pool(pool)
    else:
        if at_once not in (None, found.concurrency_limit):
            client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=at_once))


def _required_url(workspace: Workspace) -> str:
    url = api_url(workspace)
    if url is None:
        raise ServiceError(
            f"{workspace.root}: no Prefect server is known: start one with `novad up`, or name one in "
            "PREFECT_API_URL"
        )
    return url


def _wanted(workspace: Workspace, line: str, settings: LineSettings) -> dict[str, Any]:
    """The deployment of a line, in the words of Prefect's client."""
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions

    root = str(workspace.root)
    return {
        "name": line,
        "tags": [f"line:{line}", workspace_tag(workspace)],
        "entrypoint": "flows/train.py:retrain",
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": root}}],
        "parameters": {"line": line},
        "enforce_parameter_schema": False,
        "work_pool_name": pool_name(workspace),
        "job_variables": {
            "command": shlex.join([sys.executable, "-m", "novad.pipeline.flow_process"]),
            "working_dir": root,
            "env": {"NOVAD_WORKSPACE": root},
        },
        # A training looks at all that is there: one that comes while it runs would do the same work again.
        "concurrency_limit": 1,
        "concurrency_options": ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
        "schedules": [_schedule(workspace, line, settings.schedule)] if settings.schedule else [],
        "paused": False,
    }


def _schedule(workspace: Workspace, line: str, told: ScheduleSettings) -> "DeploymentScheduleCreate":
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    try:
        cron = CronSchedule(cron=told.cron, timezone=told.timezone)
    except ValueError:
        where = f"{workspace.params}: lines.{line}.schedule"
        raise ConfigError(f"{where}: Prefect does not know '{told.cron}' in '{told.timezone}'") from None
    parameters = {"reason": SCHEDULED, "jitter_seconds": told.jitter_seconds}
    return DeploymentScheduleCreate(
        schedule=cron, active=not told.paused, parameters=parameters, slug="params"
    )


def _apply(
    client: "SyncPrefectClient", found: "DeploymentResponse | None", wanted: dict[str, Any]
) -> Literal["created", "updated", "unchanged"]:
    """Write a deployment unless it is as wanted: a new one loses the runs that are scheduled."""
    if found is not None and _as_found(found) == _comparable(wanted):
        return "unchanged"
    client.create_deployment(client.create_flow_from_name(RETRAIN_FLOW), **wanted)
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
