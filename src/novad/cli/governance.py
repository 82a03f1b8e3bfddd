"""Decisions: ``novad gate``, ``promote``, ``reject``, ``rollback``, ``threshold`` and ``history``."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from novad.cli.output import JSON, answer, table, where_to_look
from novad.config import Workspace, line_settings
from novad.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from novad.tracking import Event

__all__ = ["gate", "history", "promote", "reject", "rollback", "threshold"]


def gate(
    line: Annotated[str, typer.Argument(help="Product line.")],
    version: Annotated[int | None, typer.Option(min=1, help="Default: the newest registered one.")] = None,
    as_json: bool = JSON,
) -> None:
    """Check the promotion gates without promoting; exits 1 when one fails."""
    from novad import tracking

    workspace = _workspace(line)
    number = _newest(workspace, line) if version is None else version
    verdicts = tracking.gate(workspace, line, number)
    passed = all(verdict.passed for verdict in verdicts)

    def show(console: "Console") -> None:
        rows = [
            ["passed" if verdict.passed else "FAILED", verdict.gate, verdict.measured, verdict.limit]
            for verdict in verdicts
        ]
        console.print(table(f"Gates of {line} version {number}", ("", "gate", "measured", "limit"), rows))
        if passed:
            text = f"Next: novad promote {line} --version {number} --approver WHO --reason WHY"
        else:
            text = f"Version {number} would be refused."
        console.print(text, soft_wrap=True)
        console.print(where_to_look(workspace, [line]), soft_wrap=True)

    document = {
        "line": line,
        "version": number,
        "passed": passed,
        "gates": [asdict(verdict) for verdict in verdicts],
    }
    answer(document, as_json, show)
    if not passed:
        raise typer.Exit(1)


def promote(
    line: Annotated[str, typer.Argument(help="Product line.")],
    version: Annotated[int, typer.Option(min=1, help="Registered version that becomes the champion.")],
    approver: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    reason: Annotated[str, typer.Option(help="Why, in their words.")] = "",
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask in Prefect's pages, by a form, and wait for the answer.")
    ] = False,
    wait: Annotated[int, typer.Option(min=1, help="Seconds that --ask waits.")] = 86_400,
    as_json: bool = JSON,
) -> None:
    """Make a version the champion if every gate agrees; the decision is recorded either way."""
    from novad import tracking

    workspace = _workspace(line)
    if ask and (approver or reason):
        raise ConfigError("--ask: the form asks for approver and reason; leave them out here")
    if ask:
        from novad.pipeline.approval import ask_for_promotion

        event = ask_for_promotion(workspace, line, version, wait)
    else:
        event = tracking.promote(workspace, line, version, approver, reason)
    outcome = "is champion, approved" if event.kind == "promotion" else "is rejected"
    _answer_decision(workspace, line, event, f"{line}: version {version} {outcome} by {event.actor}", as_json)
    if event.kind != "promotion":
        raise typer.Exit(1)


def reject(
    line: Annotated[str, typer.Argument(help="Product line.")],
    version: Annotated[int, typer.Option(min=1, help="Registered version that is turned down.")],
    approver: Annotated[str, typer.Option(help="Who answers for it.")],
    reason: Annotated[str, typer.Option(help="Why, in their words.")],
    as_json: bool = JSON,
) -> None:
    """Turn a version down by name and reason; the champion stays, and a later promotion is possible."""
    from novad import tracking

    workspace = _workspace(line)
    event = tracking.reject(workspace, line, version, approver, reason)
    _answer_decision(
        workspace, line, event, f"{line}: version {version} is rejected by {event.actor}", as_json
    )


def rollback(
    line: Annotated[str, typer.Argument(help="Product line.")],
    approver: Annotated[str, typer.Option(help="Who answers for it.")],
    reason: Annotated[str, typer.Option(help="Why, in their words.")],
    to: Annotated[
        int | None, typer.Option(min=1, help="A former champion; default: the one before the present.")
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Bring an earlier champion back; the decision is recorded."""
    from novad import tracking

    workspace = _workspace(line)
    event = tracking.rollback(workspace, line, approver, reason, to)
    text = f"{line}: version {event.version} is champion again instead of {event.detail['replaced']}"
    _answer_decision(workspace, line, event, f"{text}, approved by {event.actor}", as_json)


def threshold(
    line: Annotated[str, typer.Argument(help="Product line.")],
    approver: Annotated[str, typer.Option(help="Who answers for it.")],
    reason: Annotated[str, typer.Option(help="Why, in their words.")],
    alpha: Annotated[float | None, typer.Option(help="False-alarm rate, 0 to 1.")] = None,
    value: Annotated[float | None, typer.Option(help="Hybrid score above which a part fails.")] = None,
    as_json: bool = JSON,
) -> None:
    """Change the champion's decision threshold without training; the decision is recorded."""
    from novad import tracking

    workspace = _workspace(line)
    event = tracking.change_threshold(workspace, line, approver, reason, alpha=alpha, value=value)
    now, before = event.detail, event.detail["before"]

    def show(console: "Console") -> None:
        rows = [[name, f"{before[name]:.4g}", f"{now[name]:.4g}"] for name in ("fail", "review", "alpha")]
        console.print(table(f"{line} version {event.version}", ("threshold", "before", "now"), rows))
        console.print("Until the next promotion or rollback, wherever `novad` scores.", soft_wrap=True)
        console.print(where_to_look(workspace), soft_wrap=True)

    answer(asdict(event), as_json, show)


def history(line: Annotated[str, typer.Argument(help="Product line.")], as_json: bool = JSON) -> None:
    """Every decision about a line, from promotions to accepted images, oldest first."""
    from novad import tracking

    workspace = _workspace(line)
    events = tracking.history(workspace, line)
    columns = ("sequence", "at", "kind", "version", "actor", "reason", "why refused")

    def show(console: "Console") -> None:
        rows = [
            [
                event.sequence,
                event.at[:19],
                f"refusal of {event.detail['asked']}" if "asked" in event.detail else event.kind,
                event.version,
                event.actor,
                event.reason,
                _why_refused(event),
            ]
            for event in events
        ]
        console.print(table(f"Decisions on {line}", columns, rows))
        if not rows:
            console.print(f"Nobody has decided anything about {line} yet.")
        console.print(where_to_look(workspace), soft_wrap=True)

    answer({"line": line, "events": [asdict(event) for event in events]}, as_json, show)


def _answer_decision(workspace: Workspace, line: str, event: "Event", text: str, as_json: bool) -> None:
    """What a decision answers."""

    def show(console: "Console") -> None:
        console.print(text, soft_wrap=True)
        console.print(f"History:   novad history {line}")
        console.print(where_to_look(workspace), soft_wrap=True)

    answer(asdict(event), as_json, show)


def _why_refused(event: "Event") -> str | None:
    """Names of the gates that said no, or else the words of the refusal."""
    names = [gate["gate"] for gate in event.detail.get("gates", []) if not gate.get("passed", True)]
    return ", ".join(names) or event.detail.get("refused")


def _workspace(line: str) -> Workspace:
    workspace = Workspace.find()
    line_settings(workspace.params, line)
    return workspace


def _newest(workspace: Workspace, line: str) -> int:
    from novad import tracking

    found = tracking.publications(workspace, line)
    if not found:
        raise ConfigError(f"{line}: no version is registered; run `novad train {line}` first")
    return found[-1].version
