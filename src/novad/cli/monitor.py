"""``novad monitor``: does a line still see what it was calibrated on?"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError

from novad.cli.outcome import tell
from novad.cli.output import JSON, answer, figure, progress, table
from novad.config import Workspace, line_settings
from novad.config.settings import MonitorSettings
from novad.errors import ConfigError, ServiceError

if TYPE_CHECKING:
    from rich.console import Console

    from novad.tracking import Monitored

__all__ = ["monitor"]


def monitor(
    line: Annotated[str, typer.Argument(help="Product line.")],
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="ISO 8601, UTC without a zone: leave out what was decided before. Default: monitor.since.",
        ),
    ] = None,
    window: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most decisions, the newest.")] = 10_000,
    webhook: Annotated[
        str | None,
        typer.Option(metavar="URL", help="POST an alarm there as JSON. Default: monitor.webhook."),
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Tell whether the parts that pass still look as the champion's normals did; exits 1 on an alarm.

    Brightness, contrast, sharpness and scores of logged decisions are tested against the normals that set
    the champion's thresholds. Nothing is stored: the same log gives the same verdict.
    """
    workspace = Workspace.find()
    settings = line_settings(workspace.params, line).monitor
    address = _address(webhook) or settings.webhook
    from novad import tracking

    moment = tracking.parse_time(since, "--since") if since is not None else settings.since
    with progress(f"reading the decisions of {line}"):
        found = tracking.monitor(workspace, line, moment, window)
    problem = _post(address, found) if found.alarmed and address else None
    posted = None if address is None or not found.alarmed else problem is None

    def show(console: "Console") -> None:
        _show(console, found)

    answer({**asdict(found), "posted": posted}, as_json, show)
    if problem is not None:
        tell(f"novad: {problem}")
        raise typer.Exit(ServiceError.code)
    if found.alarmed:
        raise typer.Exit(1)


def _address(webhook: str | None) -> str | None:
    try:
        return MonitorSettings(webhook=webhook).webhook
    except ValidationError:
        raise ConfigError("--webhook: must be an address such as https://example.org/alarms") from None


def _post(address: str, found: "Monitored") -> str | None:
    """What went wrong, or None."""
    from novad.tracking import post_alarm

    try:
        post_alarm(address, found)
    except ServiceError as error:
        return str(error)
    return None


def _show(console: "Console", found: "Monitored") -> None:
    title = f"{found.line} version {found.version}: {found.parts} parts"
    if found.parts:
        title += f", {found.first[:19]} to {found.last[:19]}"  # type: ignore[index]
    columns = ("figure", "parts", "usual", "lately", "evidence", "became", "since")
    rows = [
        [
            each.name,
            each.parts,
            figure(each.usual),
            figure(each.lately),
            f"{each.evidence:.3g}",
            each.direction,
            each.since and each.since[:19],
        ]
        for each in found.streams
    ]
    console.print(table(title, columns, rows))
    console.print(table("Decisions", ("decision", "count", "share", "95 %"), _rates(found)))
    if any(found.left_out.values()):
        counts = [f"{count} {name.replace('_', ' ')}" for name, count in found.left_out.items() if count]
        console.print(f"Left out: {', '.join(counts)}", soft_wrap=True)
    console.print(_verdict(found), soft_wrap=True)


def _rates(found: "Monitored") -> list[list[Any]]:
    return [
        [name, rate.count, figure(rate.share), rate.interval and "{:.3f} to {:.3f}".format(*rate.interval)]
        for name, rate in found.rates.items()
    ]


def _verdict(found: "Monitored") -> str:
    limit = f"{found.evidence:.3g} against {1 / found.false_alarm_rate:.0f}"
    if not found.parts:
        return f"{found.line}: quiet; no decision of version {found.version} on a part yet"
    if not found.alarmed:
        return f"{found.line}: quiet (evidence {limit})"
    since = (found.since or "")[:19]
    return f"{found.line}: ALARM on {', '.join(found.drifted)} since about {since} (evidence {limit})"
