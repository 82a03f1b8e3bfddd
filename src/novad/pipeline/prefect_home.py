"""Prefect without a server to install: one on loopback per run, its state kept in the workspace."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from novad.config import Workspace
from novad.config.environment import environment_kept
from novad.errors import ServiceError
from novad.garbage import without_search
from novad.orphans import end_with_parent
from novad.pipeline.locks import first_free
from novad.pipeline.loopback import HOST, answers, free_port, listens
from novad.pipeline.prefect_client import (
    api_url,
    close_runs,
    prefect_client,
    tagged_runs,
    unfinished,
    workspace_tag,
)
from novad.pipeline.processes import child_environment, end

__all__ = ["prefect_api", "server_command", "server_guard"]

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

    ``PREFECT_API_URL``, when set, is used as it is, and so is the server of a running ``novad up``. Otherwise
    one starts on loopback with its database in ``.novad/prefect/N``: SQLite takes one writing server, so each
    run at the same time has its own N. It ends with this process, however that ends. Flow runs that a dead
    process left running are closed.

    Args:
        workspace: whose flows run.
        lines: that they train; the caller holds their locks.

    Raises:
        ServiceError: the server does not answer; the message names its log.
    """
    identity = workspace_tag(workspace)
    tags = [identity, *(f"line:{line}" for line in lines)]
    if url := api_url(workspace):
        # Whoever trains a line holds its lock. This process holds it now: other claims are dead ones.
        with _environment(PREFECT_API_URL=url), tagged_runs(url, tags):
            _close_abandoned_runs(url, [[identity, tag] for tag in tags[1:]])
            yield
        return
    with first_free(workspace.state / "prefect") as home, _own_server(home) as url, tagged_runs(url, tags):
        # Nobody else writes to this home: whatever claims to run there has lost its process.
        _close_abandoned_runs(url, [[identity]])
        yield


def server_command(port: int) -> list[str]:
    """Prefect's server as one process on loopback."""
    return without_search(
        "uvicorn", "--factory", "prefect.server.api.server:create_app",
        "--host", HOST, "--port", str(port), "--log-level", "warning", "--timeout-graceful-shutdown", "5",
    )  # fmt: skip


def server_guard(port: int) -> dict[str, str]:
    """Settings of a server on ``port`` that takes orders from no web page but its own.

    Prefect lets every page that a browser on this machine shows read and write, and a flow run may bring the
    command that its worker executes. Clients and Prefect's own pages fetch the token that is asked for here.
    """
    return {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    }


@contextmanager
def _own_server(home: Path) -> Iterator[str]:
    """A server with its database in ``home`` for as long as the block lasts; its address."""
    port = free_port()
    url = f"http://{HOST}:{port}/api"
    settings = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_CLI_COLORS": "false",
        **server_guard(port),
        **{f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in _NEEDLESS},
    }
    log = home / "server.log"
    with _environment(**settings):
        with log.open("w") as stream:
            server = subprocess.Popen(
                server_command(port),
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent,
            )
        try:
            # Takes as long as the server does to start; done meanwhile, it costs no time.
            import_module("prefect.flows")
            _wait_until_healthy(server, port, log)
            yield url
        finally:
            _send_logs()
            end(server)


def _send_logs() -> None:
    """Let Prefect deliver the log lines that it still holds, while its server is there to take them."""
    handlers = sys.modules.get("prefect.logging.handlers")
    if handlers is not None:
        handlers.APILogHandler().flush()


def _wait_until_healthy(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        # Not another process that took the port since it was chosen.
        if answers(f"http://{HOST}:{port}/api/health") and listens(server.pid, port):
            return
        time.sleep(0.1)
    raise ServiceError(f"Prefect's server did not start; see {log}")


@contextmanager
def _environment(**changes: str) -> Iterator[None]:
    """Settings for Prefect and the children of this process, for as long as the block lasts."""
    with environment_kept(*changes):
        os.environ.update(changes)
        yield


def _close_abandoned_runs(url: str, choices: list[list[str]]) -> None:
    """Close the flow runs that have all tags of one of ``choices`` and claim to run.

    Those of a deployment are a worker's: that one tells their end itself.
    """
    from prefect.client.schemas.filters import FlowRunFilterDeploymentId, FlowRunFilterTags

    by_hand = FlowRunFilterDeploymentId(is_null_=True)
    with prefect_client(url) as client:
        for tags in choices:
            close_runs(client, unfinished(tags=FlowRunFilterTags(all_=tags), deployment_id=by_hand))
