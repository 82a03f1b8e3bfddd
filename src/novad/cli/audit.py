"""``novad audit``: who served when, whether all of it is still what it was, and from when on a key signs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novad.cli.output import JSON, answer, progress, table, where_to_look
from novad.cli.trace import origin_rows
from novad.config import Workspace, line_settings, load_lines
from novad.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from novad.tracking import Checked, Standing

__all__ = ["audit"]


def audit(
    line: Annotated[str | None, typer.Argument(help="Product line; default: all.")] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="ISO 8601; without a zone it is UTC. Default: now.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every event and every file of every version.")
    ] = False,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt",
            help="Check event logs that never were signed and put them under NOVAD_SIGNING_KEY_FILE.",
        ),
    ] = False,
    approver: Annotated[str, typer.Option(help="With --adopt: who answers for it.")] = "",
    reason: Annotated[str, typer.Option(help="With --adopt: why, in their words.")] = "",
    as_json: bool = JSON,
) -> None:
    """Tell which version was champion at a time, from what, by whose word; --verify exits 1 on any change."""
    from novad import tracking

    if adopt and (verify or at is not None):
        raise ConfigError("--adopt: leave out --at and --verify; it checks the event log itself")
    if not adopt and (approver or reason):
        raise ConfigError("--approver, --reason: only --adopt takes them")
    workspace = Workspace.find()
    moment = tracking.parse_time(at) if at is not None else None
    # A line that was taken out of the settings judged parts all the same.
    decided = tracking.decided_lines(workspace)
    if line is not None and line not in decided:
        line_settings(workspace.params, line)
    if adopt:
        _adopt(workspace, line, approver, reason, as_json)
        return
    lines = [line] if line is not None else sorted(decided | set(load_lines(workspace.params)))
    checked: dict[str, Checked] = {}
    if verify:
        with progress("checking events and files"):
            checked = {name: tracking.check(workspace, name) for name in lines}
    broken = any(each.problems for each in checked.values())
    # A record that was changed cannot be trusted to tell who served.
    standings = [] if broken else [tracking.standing(workspace, name, moment) for name in lines]

    def show(console: "Console") -> None:
        for each in standings:
            console.print(table(f"{each.line} at {each.at[:19]}", ("", ""), _lineage(each)))
        for name, found in checked.items():
            console.print(_verdict(name, found), soft_wrap=True)
        console.print(where_to_look(workspace), soft_wrap=True)

    answer(
        {
            "standings": [asdict(each) for each in standings],
            "checked": {name: asdict(found) for name, found in checked.items()},
        },
        as_json,
        show,
    )
    if broken:
        raise typer.Exit(1)


def _adopt(workspace: Workspace, line: str | None, approver: str, reason: str, as_json: bool) -> None:
    from novad import tracking

    adopted = tracking.adopt_key(workspace, approver, reason, line)

    def show(console: "Console") -> None:
        for event in adopted:
            console.print(
                f"{event.line}: signed from event {event.sequence} on, approved by {event.actor}; "
                f"it covers all before, to the newest digest {event.previous}",
                soft_wrap=True,
            )
        if not adopted:
            console.print("Every line with a history is under the key.")
        console.print(where_to_look(workspace), soft_wrap=True)

    answer({"adopted": [asdict(event) for event in adopted]}, as_json, show)


def _lineage(found: "Standing") -> list[list[Any]]:
    decision, model, threshold = found.decision, found.model, found.threshold
    if decision is None or model is None or found.thresholds is None:
        return [["champion", "none"]]
    return [
        ["champion", f"version {decision.version}"],
        ["since", f"{decision.at[:19]} by {decision.kind} (event {decision.sequence})"],
        ["approved", f"{decision.actor}: {decision.reason}"],
        ["thresholds", ", ".join(f"{name} {value:.4g}" for name, value in found.thresholds.items())],
        ["set by", f"{threshold.actor}: {threshold.reason}" if threshold else "the version's calibration"],
        *([f"version {each}", f"still judged, last at {last[:19]}"] for each, last in found.others.items()),
        *origin_rows(model),
    ]


def _verdict(line: str, found: "Checked") -> str:
    seen = f"{line}: {found.events} events, {found.versions} versions, {found.files} files"
    if not found.problems:
        return f"{seen}: all as recorded"
    return f"{seen}: CHANGED\n" + "\n".join(f"  {problem}" for problem in found.problems)
