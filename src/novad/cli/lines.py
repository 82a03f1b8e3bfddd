"""``novad line``: add and list product lines."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from novad.cli.output import JSON, answer, command, table
from novad.config import Workspace

__all__ = ["add", "listing"]


@command
def add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and '-'.")],
    data: Annotated[Path, typer.Option(help="Folder of images; they are copied into the workspace.")],
    layout: Annotated[str, typer.Option(help="mvtec, visa or folder.")],
    backbone: Annotated[
        str, typer.Option(help="bundled, timm:NAME (downloads), or a local safetensors checkpoint.")
    ] = "bundled",
    explainer: Annotated[
        str,
        typer.Option(help="bcos (of the bundled network), or a Captum method on the line's own backbone."),
    ] = "bcos",
    image_size: Annotated[int, typer.Option(help="Side of the network's input in pixels.")] = 224,
    anomaly_type: Annotated[str, typer.Option(help="sensory, semantic_near or semantic_far.")] = "sensory",
    schedule: Annotated[str | None, typer.Option(help="Cron expression of the retraining.")] = None,
    as_json: bool = JSON,
) -> None:
    """Add a product line: copy and track its images, write its settings."""
    from novad.pipeline.lines import NewLine, add_product_line

    workspace = Workspace.find()
    told = NewLine(name, data, layout, backbone, explainer, image_size, anomaly_type, schedule)
    images = add_product_line(workspace, told)

    def show(console: Console) -> None:
        console.print(
            f"Added {name}: {images} images tracked in lines/{name}.dvc, settings in {workspace.params}"
        )
        console.print(f"Next: novad train {name}")

    answer({"line": name, "images": images, "params": str(workspace.params)}, as_json, show)


@command
def listing(as_json: bool = JSON) -> None:
    """List product lines with data digest, champion, last run and next run."""
    from novad.pipeline.lines import describe_lines

    rows = describe_lines(Workspace.find())
    columns = ("line", "data", "champion", "challenger", "last_run", "next_run")
    answer(
        {"lines": rows},
        as_json,
        lambda console: console.print(
            table("Product lines", columns, [[row[column] for column in columns] for row in rows])
        ),
    )
