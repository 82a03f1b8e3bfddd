"""``novad report``: one page that tells whether a version may judge parts, and on what evidence."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from novad.cli.output import JSON, answer, progress
from novad.config import Workspace, line_settings

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["report"]


def report(
    line: Annotated[str, typer.Argument(help="Product line.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write (default: LINE-vVERSION.html here).")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Instead of the champion.")] = None,
    as_json: bool = JSON,
) -> None:
    """Write a report for quality people: one HTML file that opens offline and prints.

    Without a champion it is about the newest version. The page holds small copies of the line's images.
    """
    workspace = Workspace.find()
    line_settings(workspace.params, line)

    from novad.report.write import write_report

    with progress(f"reporting on {line}"):
        written = write_report(workspace, line, version, output)

    def show(console: "Console") -> None:
        console.print(
            f"{line} version {written.version}: may it judge parts? {written.verdict}", soft_wrap=True
        )
        console.print(f"{written.path} ({written.bytes / 2**20:.1f} MiB)", soft_wrap=True)

    answer(asdict(written), as_json, show)
