"""What `novad up` starts: commands, settings and health addresses of its children."""

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from novad.config import Workspace
from novad.garbage import without_search
from novad.pipeline.deployments import pool_name
from novad.pipeline.loopback import HOST, listener
from novad.pipeline.prefect_home import server_command, server_guard
from novad.pipeline.processes import child_environment

__all__ = ["Ports", "Service", "plan"]

_USUAL = {"prefect": 4200, "mlflow": 5000, "serve": 8600}
_QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_LOGGING_COLORS": "false",
}


@dataclass(frozen=True)
class Ports:
    """Ports that were named on the command line."""

    prefect: int | None = None
    mlflow: int | None = None
    serve: int | None = None


@dataclass(frozen=True)
class Service:
    """One child: how to start it and where it answers."""

    name: str
    command: list[str]
    port: int
    health: str
    """Path that answers with success while it is well."""
    log: Path
    environment: dict[str, str] = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


def plan(workspace: Workspace, ports: Ports, usual: bool = True) -> list[Service]:
    """The children in the order of their start; a server that the environment names is not started again.

    Args:
        workspace: whose services.
        ports: that were named.
        usual: whether the others are the usual ones where those are free, or any.
    Raises:
        ConfigError: a named port is taken.
    """
    with ExitStack() as held:
        chosen = {
            name: _hold(held, f"--{name}-port", getattr(ports, name), port if usual else 0)
            for name, port in _USUAL.items()
        }
        chosen["worker"] = _hold(held, "--worker-port", None, 0)
    commands = {
        "prefect": (server_command(chosen["prefect"]), "/api/health"),
        "mlflow": (_mlflow_command(chosen["mlflow"]), "/health"),
        "worker": (_worker_command(workspace), "/health"),
        "serve": (_serve_command(chosen["serve"]), "/healthz"),
    }
    outside = {"prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI"}
    settings = _settings(workspace, chosen)
    return [
        Service(name, command, chosen[name], health, workspace.state / "logs" / f"{name}.log", settings)
        for name, (command, health) in commands.items()
        if not os.environ.get(outside.get(name, ""), "")
    ]


def _hold(held: ExitStack, name: str, named: int | None, usual: int) -> int:
    """A port that stays held until all are chosen, so that no two children get the same."""
    return int(held.enter_context(listener(name, named, usual)).getsockname()[1])


def _settings(workspace: Workspace, chosen: dict[str, int]) -> dict[str, str]:
    home, store = workspace.state / "prefect" / "up", f"sqlite:///{workspace.state / 'mlflow.db'}"
    home.mkdir(parents=True, exist_ok=True)
    told: dict[str, str] = {
        "NOVAD_WORKSPACE": str(workspace.root),
        # It renames overdue runs one by one, in transactions that collide in SQLite; they run all the same.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_WORKER_WEBSERVER_HOST": HOST,
        "PREFECT_WORKER_WEBSERVER_PORT": str(chosen["worker"]),
        # What `mlflow server` itself hands to the processes below it, of which none would end with us.
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (workspace.state / "mlartifacts").as_uri(),
    }
    if not os.environ.get("PREFECT_API_URL"):
        port = chosen["prefect"]
        told |= {"PREFECT_HOME": str(home), "PREFECT_API_URL": f"http://{HOST}:{port}/api"}
        told |= server_guard(port)
    return child_environment(**_QUIET, **told)


def _mlflow_command(port: int) -> list[str]:
    return without_search(
        "uvicorn", "mlflow.server.fastapi_app:app",
        "--host", HOST, "--port", str(port), "--log-level", "warning", "--timeout-graceful-shutdown", "5",
    )  # fmt: skip


def _worker_command(workspace: Workspace) -> list[str]:
    pool = pool_name(workspace)
    return without_search("prefect", "worker", "start", "--pool", pool, "--with-healthcheck")


def _serve_command(port: int) -> list[str]:
    program = "from novad.cli import main; main()"
    return [sys.executable, "-c", program, "serve", "--host", HOST, "--port", str(port)]
