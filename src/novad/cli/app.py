"""All commands in one place; each imports what it needs when it runs, so that ``--help`` is quick."""

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from novad import __version__
from novad.cli import (
    audit,
    bench,
    data,
    deploy,
    doctor,
    export,
    governance,
    lines,
    monitor,
    report,
    score,
    serve,
    trace,
    train,
    up,
)
from novad.cli.outcome import conclude
from novad.garbage import spare_search

__all__ = ["app", "main"]

app = typer.Typer(
    name="novad",
    help="Novelty-aware anomaly detection for visual inspection.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
line_app = typer.Typer(help="Product lines.", no_args_is_help=True)
app.add_typer(line_app, name="line")
data_app = typer.Typer(help="Verified images into a line's data.", no_args_is_help=True)
app.add_typer(data_app, name="data")

app.command("doctor")(doctor.doctor)
line_app.command("add")(lines.add)
line_app.command("list")(lines.listing)
app.command("validate")(train.validate)
data_app.command("verdicts")(data.verdicts)
data_app.command("pending")(data.pending)
data_app.command("accept")(data.accept)
app.command("train")(train.train)
app.command("score")(score.score)
app.command("serve")(serve.serve)
app.command("deploy")(deploy.deploy)
app.command("up")(up.up)
app.command("down")(up.down)
app.command("status")(up.status)
app.command("export")(export.export)
app.command("report")(report.report)
app.command("bench")(bench.bench)
app.command("gate")(governance.gate)
app.command("promote")(governance.promote)
app.command("reject")(governance.reject)
app.command("rollback")(governance.rollback)
app.command("threshold")(governance.threshold)
app.command("history")(governance.history)
app.command("audit")(audit.audit)
app.command("trace")(trace.trace)
app.command("monitor")(monitor.monitor)
app.command("demo")(train.demo)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"novad {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Novelty-aware anomaly detection for visual inspection."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the ``novad`` command; always raises ``SystemExit`` with its status."""
    spare_search()
    sys.exit(conclude(app, sys.argv[1:] if arguments is None else arguments))
