"""``novad gate``, ``novad promote`` and ``novad history``."""

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console

from novad.cli.output import JSON, answer, command, table
from novad.config import Workspace, line_settings
from novad.errors import ConfigError

__all__ = ["gate", "history", "promote"]


@command
def gate(
    line: Annotated[str, typer.Argument()],
    version: Annotated[int | None, typer.Option(help="Default: the newest registered version.")] = None,
    as_json: bool = JSON,
) -> None:
    """Check the promotion gates without promoting; exits 1 when one fails."""
    from novad import tracking

    workspace = _workspace(line)
    number = version or _newest(workspace, line)
    verdicts = tracking.gate(workspace, line, number)
    passed = all(verdict.passed for verdict in verdicts)

    def show(console: Console) -> None:
        rows = [list(asdict(verdict).values()) for verdict in verdicts]
        console.print(table(f"{line} version {number}", list(asdict(verdicts[0])), rows))

    document = {
        "line": line,
        "version": number,
        "passed": passed,
        "gates": [asdict(verdict) for verdict in verdicts],
    }
    answer(document, as_json, show)
    if not passed:
        raise typer.Exit(1)


@command
def promote(
    line: Annotated[str, typer.Argument()],
    version: Annotated[int, typer.Option()],
    approver: Annotated[str, typer.Option(help="Who answers for it.")],
    reason: Annotated[str, typer.Option(help="Why, in their words.")],
    as_json: bool = JSON,
) -> None:
    """Make a version the champion if every gate agrees; the decision is recorded either way."""
    from novad import tracking

    workspace = _workspace(line)
    event = tracking.promote(workspace, line, version, approver, reason)
    answer(
        asdict(event),
        as_json,
        lambda console: console.print(f"{line}: version {version} is champion, approved by {approver}"),
    )


@command
def history(line: Annotated[str, typer.Argument()], as_json: bool = JSON) -> None:
    """Every promotion and refusal of a line, oldest first."""
    from novad import tracking

    workspace = _workspace(line)
    found = [asdict(event) for event in tracking.history(workspace, line)]

    def show(console: Console) -> None:
        columns = ("sequence", "at", "kind", "version", "actor", "reason")
        console.print(table(line, columns, [[event.get(column) for column in columns] for event in found]))

    answer({"line": line, "events": found}, as_json, show)


def _workspace(line: str) -> Workspace:
    workspace = Workspace.find()
    line_settings(workspace.params, line)
    return workspace


def _newest(workspace: Workspace, line: str) -> int:
    from novad import tracking

    found: list[Any] = tracking.publications(workspace, line)
    if not found:
        raise ConfigError(f"{line}: no version is registered; run `novad train {line}` first")
    return int(found[-1].version)
