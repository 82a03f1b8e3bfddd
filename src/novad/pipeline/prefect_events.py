"""Events of a flow on their way to Prefect's server, given up together once nobody takes them any more."""

from prefect.events.clients import RETRYABLE_EXCEPTIONS, PrefectEventsClient
from prefect.events.schemas.events import Event
from prefect.events.worker import EventsWorker, emit_events_to_cloud

__all__ = ["bound_delivery"]


class _BoundedEventsClient(PrefectEventsClient):
    """Tries for seconds to deliver one event, and drops what follows one that it could not deliver.

    Prefect's own client tries as long for each of them: a process whose server died ends minutes later.
    """

    _given_up = False

    async def _emit(self, event: Event) -> None:
        if self._given_up:
            return
        try:
            await super()._emit(event)
        except RETRYABLE_EXCEPTIONS:
            self._given_up = True


def bound_delivery() -> None:
    """Let the flows of this process end soon after their server did; Prefect Cloud has its own client."""
    if not emit_events_to_cloud():
        EventsWorker.set_client_override(_BoundedEventsClient)
