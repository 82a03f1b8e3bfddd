"""``novad up``, ``novad down`` and ``novad status``: everything on one machine."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novad.cli.lines import brief
from novad.cli.outcome import document, tell
from novad.cli.output import JSON, answer, progress, table
from novad.config import Workspace
from novad.errors import NovadError, ServiceError, exit_code

if TYPE_CHECKING:
    from rich.console import Console

    from novad.tracking.services import RunningServices

__all__ = ["down", "status", "up"]

_PORT = "Port; without it {}, or a free one where that is taken."


def up(
    prefect_port: Annotated[int | None, typer.Option(min=1, max=65535, help=_PORT.format(4200))] = None,
    mlflow_port: Annotated[int | None, typer.Option(min=1, max=65535, help=_PORT.format(5000))] = None,
    serve_port: Annotated[int | None, typer.Option(min=1, max=65535, help=_PORT.format(8600))] = None,
    as_json: bool = JSON,
) -> None:
    """Prefect, MLflow, one worker and the scoring service on loopback, until Ctrl-C or `novad down`."""
    from novad.pipeline.services import Ports
    from novad.pipeline.supervisor import run_services

    workspace = Workspace.find()
    begun = False

    def ready(running: "RunningServices") -> None:
        nonlocal begun
        begun = True
        _tell(running, as_json)

    try:
        run_services(workspace, Ports(prefect_port, mlflow_port, serve_port), ready, tell)
    except NovadError as error:
        if not begun:
            raise
        # The one document was printed when all was ready.
        tell(f"novad: {error}")
        raise typer.Exit(exit_code(error)) from None


def down(as_json: bool = JSON) -> None:
    """End the `novad up` of this workspace, and everything that it started."""
    from novad.pipeline.supervisor import bring_down

    with progress("stopping"):
        ended = bring_down(Workspace.find())

    def show(console: "Console") -> None:
        if ended is None:
            console.print("Nothing to do: `novad up` does not run here.")
        else:
            names = ", ".join(service.name for service in ended.services)
            console.print(f"Stopped process {ended.pid}: {names}", soft_wrap=True)

    answer({"stopped": None if ended is None else asdict(ended)}, as_json, show)


def status(as_json: bool = JSON) -> None:
    """What runs, whether it is healthy and where, and the last and next run of every line."""
    from novad.pipeline.lines import describe_lines
    from novad.pipeline.loopback import answers
    from novad.tracking.services import find_services

    workspace = Workspace.find()
    running = find_services(workspace)
    services = [
        asdict(service) | {"healthy": answers(service.health)}
        for service in (running.services if running else ())
    ]
    lines, problem = _lines(describe_lines, workspace)
    columns = ("line", "champion", "newest", "last_run", "last_state", "last_reason", "next_run")

    def show(console: "Console") -> None:
        if running is None:
            console.print("`novad up` does not run here.")
        else:
            rows = [
                [each["name"], "healthy" if each["healthy"] else "NOT ANSWERING", each["url"], each["pid"]]
                for each in services
            ]
            title = f"novad up, process {running.pid} since {running.since}"
            console.print(table(title, ("service", "", "address", "process"), rows))
            console.print(f"Logs:      {workspace.state / 'logs'}", soft_wrap=True)
        console.print(
            table("Product lines", columns, [[brief(name, row[name]) for name in columns] for row in lines])
        )
        if problem:
            console.print(problem, soft_wrap=True)

    told = {
        "running": running is not None,
        "pid": running.pid if running else None,
        "since": running.since if running else None,
        "services": services,
        "lines": lines,
        "problem": problem,
    }
    answer(told, as_json, show)


def _lines(describe: Any, workspace: Workspace) -> tuple[list[dict[str, Any]], str | None]:
    """The lines, or why they cannot be told: what runs is told all the same."""
    try:
        return describe(workspace), None
    except ServiceError as error:
        return [], str(error)


def _tell(running: "RunningServices", as_json: bool) -> None:
    if as_json:
        document(asdict(running))
        return
    for service in running.services:
        print(f"{service.name:8} {service.url}  (log: {service.log})", flush=True)
    print(f"console  {running.url('serve')}/console/", flush=True)
    print("`novad deploy` puts lines on their schedules; Ctrl-C or `novad down` ends everything", flush=True)
