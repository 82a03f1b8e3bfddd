"""``novad deploy``: the schedules of all lines into Prefect."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from novad.cli.output import JSON, answer, progress, table
from novad.config import Workspace

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["deploy"]


def deploy(
    at_once: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings of this workspace at the same time; at first 1, then as it was."),
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Make Prefect's deployments of every line those of params.yaml; exits 3 where no server answers."""
    from novad.pipeline.deployments import deploy as apply

    workspace = Workspace.find()
    with progress("deploying"):
        changes = apply(workspace, at_once)

    def show(console: "Console") -> None:
        rows = [[each.line, each.work, each.change, each.next_run] for each in changes]
        console.print(table("Deployments", ("line", "", "", "next run"), rows))
        if all(each.change == "unchanged" for each in changes):
            console.print("Nothing to do: every line is deployed as params.yaml says.")

    answer({"lines": [asdict(each) for each in changes]}, as_json, show)
