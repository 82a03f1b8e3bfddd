"""Runs of one schedule begin at different times, so that the machines of a plant do not start at once."""

import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

__all__ = ["put_off"]


def put_off(jitter_seconds: int) -> "State[Any] | None":
    """The state by which this flow run begins at its share of the jitter; None where that has come.

    A run that ends as Scheduled leaves its place to others until a worker takes it up again.
    """
    from prefect.runtime import flow_run
    from prefect.states import Scheduled

    if not flow_run.id:
        return None
    # The run's own number: at its second start the share is the same.
    share = random.Random(flow_run.id).uniform(0, jitter_seconds)  # noqa: S311 - spreads load, guards nothing
    begins = flow_run.scheduled_start_time + timedelta(seconds=share)
    if datetime.now(UTC) >= begins:
        return None
    return Scheduled(scheduled_time=begins, message=f"begins {share:.0f} s after its time")
