"""Prefect without a server to install: one on loopback per run, its state kept in the workspace."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from filelock import FileLock

from novad.config import Workspace
from novad.errors import ServiceError
from novad.pipeline.locks import first_free
from novad.pipeline.processes import child_environment, end_with_parent

__all__ = ["prefect_api"]

_PATIENCE = 90.0
# Loops for schedules, workers and automations, of which a server that lives as long as one run has none.
_NEEDLESS = (
    "CANCELLATION_CLEANUP",
    "CLEANUP_RECONCILER",
    "FOREMAN",
    "LATE_RUNS",
    "PAUSE_EXPIRATIONS",
    "REPOSSESSOR",
    "SCHEDULER",
    "TRIGGERS",
)


@contextmanager
def prefect_api(workspace: Workspace, lines: list[str]) -> Iterator[None]:
    """Make Prefect's API reachable for this process and its children, and tag the flow runs inside.

    ``PREFECT_API_URL``, when set, is used as it is. Otherwise a server starts on loopback with its database
    in ``.novad/prefect/N``: SQLite takes one writing server, so each run at the same time has its own N. It
    ends with this process, however that ends. Flow runs that a dead process left running are closed.

    Args:
        workspace: whose flows run.
        lines: that they train; the caller holds their locks.

    Raises:
        ServiceError: the server does not answer; the message names its log.
    """
    identity = f"workspace:{_identity(workspace)}"
    tags = [identity, *(f"line:{line}" for line in lines)]
    if os.environ.get("PREFECT_API_URL"):
        # Whoever trains a line holds its lock. This process holds it now: other claims are dead ones.
        with _tagged(tags):
            _close_abandoned_runs([[identity, tag] for tag in tags[1:]])
            yield
        return
    with first_free(workspace.state / "prefect") as home:
        port = _free_port()
        settings = {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_LOGGING_LEVEL": "INFO",
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_CLI_COLORS": "false",
            **{f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in _NEEDLESS},
        }
        os.environ.update(settings)
        log = home / "server.log"
        with log.open("w") as stream:
            server = subprocess.Popen(
                [
                    sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app",
                    "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning",
                ],
                env=child_environment(**settings),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent,
            )  # fmt: skip
        try:
            # Takes as long as the server does to start; done meanwhile, it costs no time.
            import_module("prefect.flows")
            _wait_until_healthy(server, port, log)
            # Nobody else writes to this home: whatever claims to run there has lost its process.
            with _tagged(tags):
                _close_abandoned_runs([[identity]])
                yield
        finally:
            _send_logs()
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
            for name in settings:
                os.environ.pop(name, None)


def _send_logs() -> None:
    """Let Prefect deliver the log lines that it still holds, while its server is there to take them."""
    handlers = sys.modules.get("prefect.logging.handlers")
    if handlers is not None:
        handlers.APILogHandler().flush()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    url, deadline = f"http://127.0.0.1:{port}/api/health", time.monotonic() + _PATIENCE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with opener.open(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise ServiceError(f"Prefect's server did not start; see {log}")


def _identity(workspace: Workspace) -> str:
    """A name for the workspace that no other one has, wherever it is mounted."""
    path = workspace.state / "identity"
    workspace.state.mkdir(parents=True, exist_ok=True)
    with FileLock(workspace.state / "identity.lock"):
        if not path.exists():
            fresh = path.with_suffix(".new")
            fresh.write_text(uuid.uuid4().hex, "ascii")
            fresh.replace(path)
    return path.read_text("ascii")


@contextmanager
def _tagged(names: list[str]) -> Iterator[None]:
    """Give flow runs their tags. Where Prefect is loaded already, tell it the settings of this time too."""
    from prefect import settings, tags

    with settings.temporary_settings({settings.PREFECT_API_URL: os.environ["PREFECT_API_URL"]}), tags(*names):
        yield


def _close_abandoned_runs(choices: list[list[str]]) -> None:
    """Close the flow runs that have all tags of one of ``choices`` and claim to run."""
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        FlowRunFilterTags,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    alive = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
    dead: Any = Crashed(message="its process ended without a word")
    try:
        with get_client(sync_client=True) as client:
            for tags in choices:
                chosen = FlowRunFilter(state=alive, tags=FlowRunFilterTags(all_=tags))
                for run in client.read_flow_runs(flow_run_filter=chosen):
                    client.set_flow_run_state(run.id, dead, force=True)
    except httpx.HTTPError as error:
        raise ServiceError(f"Prefect at {os.environ['PREFECT_API_URL']}: {error}") from error
