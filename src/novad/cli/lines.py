"""``novad line``: add and list product lines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from novad.cli.output import JSON, answer, progress, table, where_to_look
from novad.config import Workspace

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["add", "brief", "listing"]


def add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and '-'.")],
    data: Annotated[Path, typer.Option(help="Folder of images; they are copied into the workspace.")],
    layout: Annotated[str, typer.Option(help="mvtec, visa or folder.")],
    backbone: Annotated[
        str, typer.Option(help="bundled, timm:NAME or bcos:NAME (download), or a local weight file.")
    ] = "bundled",
    explainer: Annotated[
        str,
        typer.Option(help="bcos (of the bundled network), or a Captum method on the line's own backbone."),
    ] = "bcos",
    image_size: Annotated[
        str,
        typer.Option(help="Side of the network's input in pixels (of long images as many), or WIDTHxHEIGHT."),
    ] = "224",
    tile: Annotated[
        int, typer.Option(help="Side of the parts in which an image goes through the network; 0: whole.")
    ] = 0,
    anomaly_type: Annotated[str, typer.Option(help="sensory, semantic_near or semantic_far.")] = "sensory",
    schedule: Annotated[str | None, typer.Option(help="Cron expression of the retraining.")] = None,
    as_json: bool = JSON,
) -> None:
    """Add a product line: copy and track its images, write its settings."""
    from novad.pipeline.lines import NewLine, add_product_line

    workspace = Workspace.find()
    told = NewLine(name, data, layout, backbone, explainer, image_size, tile, anomaly_type, schedule)
    with progress(f"copying and tracking the images of {name}"):
        added = add_product_line(workspace, told)

    def show(console: "Console") -> None:
        console.print(f"Added {name}: {added.images} images, tracked by lines/{name}.dvc", soft_wrap=True)
        console.print(f"Input:     {_sides(added.image_size)} pixels", soft_wrap=True)
        console.print(f"Settings:  {workspace.params}", soft_wrap=True)
        console.print(f"Next:      novad train {name}", soft_wrap=True)

    document = {
        "line": name,
        "images": added.images,
        "image_size": added.image_size,
        "data": f"lines/{name}",
        "tracked_by": f"lines/{name}.dvc",
        "params": str(workspace.params),
    }
    answer(document, as_json, show)


def _sides(size: int | str) -> str:
    return size if isinstance(size, str) else f"{size}x{size}"


def listing(as_json: bool = JSON) -> None:
    """List product lines with data digest, champion, last run and next run."""
    from novad.pipeline.lines import describe_lines

    workspace = Workspace.find()
    rows = describe_lines(workspace)
    columns = ("line", "data", "champion", "newest", "last_run", "next_run")

    def show(console: "Console") -> None:
        shown = [[brief(column, row[column]) for column in columns] for row in rows]
        console.print(table("Product lines", columns, shown))
        console.print(where_to_look(workspace), soft_wrap=True)

    answer({"lines": rows}, as_json, show)


def brief(column: str, value: object) -> object:
    """A digest's beginning, and times to the second: the JSON document has them whole."""
    widths = {"data": 12, "last_run": 19, "next_run": 19}
    return str(value)[: widths[column]] if value is not None and column in widths else value
