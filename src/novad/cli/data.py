"""``novad data``: verdicts from a table, the images that they verify, and those images into a line's data."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novad.cli.output import JSON, answer, progress, table
from novad.config import Workspace, line_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from novad.pipeline.verified_images import VerifiedImage

__all__ = ["accept", "pending", "verdicts"]

_HELD_BACK_SHOWN = 20


def verdicts(
    line: Annotated[str, typer.Argument(help="Product line.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.csv",
            help="Columns prediction_id or image (path, sha256), truth (good, defect), defect_type, reason.",
        ),
    ],
    by: Annotated[str, typer.Option(help="Who found out.")],
    as_json: bool = JSON,
) -> None:
    """Add what parts really were from a CSV file: every row or, with the wrong ones named, none."""
    from novad.tracking import import_verdicts

    workspace = Workspace.find()
    line_settings(workspace.params, line)
    added, standing = import_verdicts(workspace, line, file, by)

    def show(console: "Console") -> None:
        console.print(f"{line}: {added} verdicts added, {standing} stood already", soft_wrap=True)
        console.print(f"Next:      novad data pending {line}", soft_wrap=True)

    answer({"line": line, "added": added, "standing": standing}, as_json, show)


def pending(line: Annotated[str, typer.Argument(help="Product line.")], as_json: bool = JSON) -> None:
    """Show verified images that could join the line's data, and why others cannot."""
    from novad.pipeline.accepting import pending_images

    workspace = Workspace.find()
    with progress(f"looking at the images of {line}"):
        coming = pending_images(workspace, line)

    def show(console: "Console") -> None:
        _show_images(console, f"Verified images of {line}", coming.ready)
        _show_held_back(console, coming.held_back)
        if coming.ready:
            text = f"Next:      novad data accept {line} --approver WHO --reason WHY"
        else:
            text = f"No verified image waits to join the data of {line}."
        console.print(text, soft_wrap=True)

    document = {"line": line, "ready": _rows(coming.ready), "held_back": _rows(coming.held_back)}
    answer(document, as_json, show)


def accept(
    line: Annotated[str, typer.Argument(help="Product line.")],
    approver: Annotated[str, typer.Option(help="Who answers for it.")],
    reason: Annotated[str, typer.Option(help="Why, in their words.")],
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A prediction id, or a sha256 or its beginning; may be repeated."),
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Copy verified images into the line's data as its next version; the decision is recorded."""
    from novad.pipeline.accepting import accept_verified

    workspace = Workspace.find()
    with progress(f"accepting images of {line}"):
        done = accept_verified(workspace, line, approver, reason, only or ())

    def show(console: "Console") -> None:
        _show_held_back(console, done.held_back)
        if done.event is None:
            console.print(f"Nothing to accept: no verified image of {line} waits.", soft_wrap=True)
            return
        _show_images(console, f"Joined the data of {line}", done.images)
        data = done.event.detail["data"]
        text = f"{line}: event {done.event.sequence}, approved by {approver}"
        console.print(f"{text}; data {data['before']} -> {data['after']}", soft_wrap=True)
        console.print(f"Next:      novad train {line}", soft_wrap=True)

    document = {
        "line": line,
        "event": asdict(done.event) if done.event is not None else None,
        "accepted": _rows(done.images),
        "held_back": _rows(done.held_back),
    }
    answer(document, as_json, show)


def _rows(images: "Sequence[VerifiedImage]") -> list[dict[str, Any]]:
    return [asdict(each) for each in images]


def _show_images(console: "Console", title: str, images: "Sequence[VerifiedImage]") -> None:
    rows = [[each.kind, each.sources[-1], each.sha256[:12], each.path, each.actor] for each in images]
    if rows:
        console.print(table(title, ("", "image", "sha256", "becomes", "verdict of"), rows))


def _show_held_back(console: "Console", images: "Sequence[VerifiedImage]") -> None:
    """The newest of them: images of old verdicts are gone for ever where nobody keeps them."""
    shown = images[-_HELD_BACK_SHOWN:]
    rows = [[each.kind, each.sources[-1], each.sha256[:12], each.held_back] for each in shown]
    if rows:
        console.print(table("Held back", ("", "image", "sha256", "because"), rows))
    if len(shown) < len(images):
        console.print(f"... and {len(images) - len(shown)} before these; --json tells all.")
