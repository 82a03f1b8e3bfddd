"""All commands in one place; each imports what it needs when it runs, so that ``--help`` is quick."""

import typer

from novad.cli import doctor, governance, lines, score, train

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

app.command("doctor")(doctor.doctor)
line_app.command("add")(lines.add)
line_app.command("list")(lines.listing)
app.command("validate")(train.validate)
app.command("train")(train.train)
app.command("score")(score.score)
app.command("gate")(governance.gate)
app.command("promote")(governance.promote)
app.command("history")(governance.history)
app.command("demo")(train.demo)


def main() -> None:
    """Entry point of the ``novad`` command."""
    app()
