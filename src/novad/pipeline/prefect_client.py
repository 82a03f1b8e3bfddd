"""Prefect's API as a workspace reaches it: which server, by which tag, and its errors as ours."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from novad.config import Workspace
from novad.config.whole_file import write_whole
from novad.errors import ServiceError
from novad.tracking.services import find_services

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import FlowRunFilter

__all__ = [
    "api_url",
    "close_runs",
    "prefect_client",
    "required_api_url",
    "tagged_runs",
    "unfinished",
    "workspace_identity",
    "workspace_tag",
]

# After 2, 4 and 8 s: a server may restart or be busy. Prefect's own 5 wait a minute for one that is gone.
_RETRIES = "3"
# Of who has others to look after meanwhile.
_IMPATIENT_RETRIES = 1
_IMPATIENT_SECONDS = 10.0


def api_url(workspace: Workspace) -> str | None:
    """``PREFECT_API_URL``, else the server of ``novad up``; None when there is neither."""
    if named := os.environ.get("PREFECT_API_URL"):
        return named
    running = find_services(workspace)
    served = running.url("prefect") if running else None
    return f"{served}/api" if served else None


def required_api_url(workspace: Workspace) -> str:
    """:func:`api_url`, where there must be one.

    Raises:
        ServiceError: no server is known; tells how to get one.
    """
    url = api_url(workspace)
    if url is None:
        raise ServiceError(
            f"{workspace.root}: no Prefect server is known: start one with `novad up`, or name one in "
            "PREFECT_API_URL"
        )
    return url


@contextmanager
def prefect_client(url: str, patient: bool = True) -> Iterator["SyncPrefectClient"]:
    """A client of the server at ``url``, also where Prefect is loaded already with other settings.

    Args:
        url: of the server's API.
        patient: whether it waits for a server that does not answer; up to a minute by Prefect's own settings.
    Raises:
        ServiceError: the server does not answer, or refused; the message names its address.
    """
    from prefect import settings
    from prefect.client.orchestration import get_client

    told: dict[Any, Any] = {settings.PREFECT_API_URL: url}
    if not patient:
        told |= {
            settings.PREFECT_CLIENT_MAX_RETRIES: _IMPATIENT_RETRIES,
            settings.PREFECT_API_REQUEST_TIMEOUT: _IMPATIENT_SECONDS,
        }
    with (
        _service_errors(url),
        settings.temporary_settings(told),
        get_client(sync_client=True) as client,
    ):
        yield client


@contextmanager
def tagged_runs(url: str, names: list[str]) -> Iterator[None]:
    """Give flow runs their tags. Where Prefect is loaded already, tell it the settings of this time too.

    Raises:
        ServiceError: the server went away while a flow ran; the message names its address.
    """
    from prefect import settings, tags

    from novad.pipeline.prefect_events import bound_delivery

    os.environ.setdefault("PREFECT_CLIENT_MAX_RETRIES", _RETRIES)
    told: dict[Any, Any] = {
        settings.PREFECT_API_URL: url,
        settings.PREFECT_CLIENT_MAX_RETRIES: int(os.environ["PREFECT_CLIENT_MAX_RETRIES"]),
    }
    with _service_errors(url), settings.temporary_settings(told), tags(*names):
        bound_delivery()
        yield


@contextmanager
def _service_errors(url: str) -> Iterator[None]:
    import httpx
    from prefect.exceptions import PrefectException

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, PrefectException) as error:
        raise ServiceError(f"Prefect at {url}: {error or type(error).__name__}") from error


def unfinished(**criteria: Any) -> "FlowRunFilter":
    """Flow runs that claim to run or to be about to, by further criteria of Prefect's filter."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    kinds = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
    return FlowRunFilter(state=FlowRunFilterState(type=kinds), **criteria)


def close_runs(client: "SyncPrefectClient", chosen: "FlowRunFilter") -> None:
    """Close flow runs whose process is known to be gone; that frees their places, too."""
    from prefect.states import Crashed

    dead: Any = Crashed(message="its process ended without a word")
    while runs := client.read_flow_runs(flow_run_filter=chosen):
        for run in runs:
            client.set_flow_run_state(run.id, dead, force=True)


def workspace_tag(workspace: Workspace) -> str:
    """The tag of everything in Prefect that belongs to the workspace."""
    return f"workspace:{workspace_identity(workspace)}"


def workspace_identity(workspace: Workspace) -> str:
    """A name for the workspace that no other one has, wherever it is mounted."""
    path = workspace.state / "identity"
    workspace.state.mkdir(parents=True, exist_ok=True)
    with FileLock(workspace.state / "identity.lock"):
        if not path.exists():
            write_whole(path, uuid.uuid4().hex.encode("ascii"))
    return path.read_text("ascii")
