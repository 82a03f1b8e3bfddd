"""``novad export``: a folder that scores on a machine without MLflow, Prefect and DVC."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from novad.cli.output import JSON, answer, progress, where_to_look
from novad.config import Workspace, line_settings

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["export"]


def export(
    line: Annotated[str, typer.Argument(help="Product line.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make; new or empty.")],
    version: Annotated[int | None, typer.Option(min=1, help="Instead of the champion.")] = None,
    golden: Annotated[
        int, typer.Option(min=0, help="Test images copied into the bundle, for its parity check.")
    ] = 8,
    as_json: bool = JSON,
) -> None:
    """Write an edge bundle: the champion, its threshold, a manifest and a parity check.

    The bundle holds copies of the line's test images; `--golden 0` leaves them out, and nothing is compared.
    """
    workspace = Workspace.find()
    line_settings(workspace.params, line)

    from novad.edge.export import export as write

    with progress(f"exporting {line}"):
        written = write(workspace, line, output, version, golden)

    def show(console: "Console") -> None:
        console.print(f"{line} version {written.version}: {written.folder}", soft_wrap=True)
        console.print(f"Digest:    {written.bundle_digest} (sha256 of edge.json)", soft_wrap=True)
        console.print(f"Parity:    {_parity(written.check)}", soft_wrap=True)
        console.print(f"Next:      python {Path(written.folder) / 'score.py'} IMAGE...", soft_wrap=True)
        console.print(where_to_look(workspace), soft_wrap=True)

    answer(asdict(written), as_json, show)


def _parity(check: dict[str, object]) -> str:
    if not check["golden"]:
        return "not compared: no golden images"
    return (
        f"{check['golden']} golden images (copies of test images) differ by at most "
        f"{check['largest_difference']:.2g} in a clean process; {check['tolerance']:g} is allowed"
    )
