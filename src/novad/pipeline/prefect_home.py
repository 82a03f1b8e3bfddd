"""Prefect without a server to install: one on loopback per run, its state kept in the workspace."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from novad.config import Workspace
from novad.errors import ServiceError
from novad.pipeline.locks import first_free
from novad.pipeline.processes import child_environment, end_with_parent

__all__ = ["prefect_api"]

_PATIENCE = 90.0


@contextmanager
def prefect_api(workspace: Workspace) -> Iterator[None]:
    """Make Prefect's API reachable for this process and its children.

    ``PREFECT_API_URL``, when set, is used as it is. Otherwise a server starts on loopback with its database
    in ``.novad/prefect/N``: SQLite takes one writing server, so each run at the same time has its own N. It
    ends with this process, however that ends; flow runs that a dead process left running are closed.

    Must be entered before Prefect is imported, because Prefect reads its settings once.

    Raises:
        ServiceError: the server does not answer; the message names its log.
    """
    if os.environ.get("PREFECT_API_URL"):
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
            _wait_until_healthy(server, port, log)
            _close_abandoned_runs()
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


def _close_abandoned_runs() -> None:
    """Nobody else writes to this home, so whatever still claims to run there has lost its process."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    alive = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED])
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=alive))):
            client.set_flow_run_state(run.id, Crashed(message="its process ended without a word"), force=True)
