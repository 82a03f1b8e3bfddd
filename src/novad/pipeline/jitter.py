"""Runs of one schedule begin at different times, so that the machines of a plant do not start at once."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from novad.config import Workspace
from novad.pipeline.prefect_client import prefect_client, required_api_url

__all__ = ["put_off"]


def put_off(workspace: Workspace, jitter_seconds: int) -> None:
    """Return when this flow run's share of the jitter has come, which a run by hand does not have.

    Before that the run becomes Scheduled again and its process ends: others have its place until a worker
    takes it up at its share.

    Raises:
        prefect.exceptions.Abort: by which Prefect ends a process whose run goes on elsewhere.
        ServiceError: the server does not answer.
    """
    from prefect.exceptions import Abort
    from prefect.runtime import flow_run
    from prefect.states import Scheduled

    if not jitter_seconds:
        return
    # Drawn by the run's own number: at its second start the share is the same.
    share = random.Random(flow_run.id).uniform(0, jitter_seconds)  # noqa: S311 - spreads load, guards nothing
    begins = flow_run.scheduled_start_time + timedelta(seconds=share)
    if datetime.now(UTC) < begins:
        later: Any = Scheduled(scheduled_time=begins, message=f"begins {share:.0f} s after its time")
        with prefect_client(required_api_url(workspace)) as client:
            client.set_flow_run_state(flow_run.id, later, force=True)
        raise Abort(later.message)
