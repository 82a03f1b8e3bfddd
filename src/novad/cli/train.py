"""``novad validate``, ``novad train`` and ``novad demo``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from novad.cli.output import JSON, answer, command, figure, progress, table, tell
from novad.config import Workspace
from novad.errors import exit_code

__all__ = ["demo", "train", "validate"]

KINDS = ("familiarity", "novelty", "hybrid")


@command
def validate(line: Annotated[str, typer.Argument()], as_json: bool = JSON) -> None:
    """Run the data gate of one line; every finding names its image."""
    from novad.pipeline.train import validate_line

    workspace = Workspace.find()
    with progress(f"validating {line}"):
        ran = validate_line(workspace, line)
    folder = workspace.artifacts(line, "validate")
    report = json.loads((folder / "report.json").read_text("utf-8"))

    def show(console: Console) -> None:
        for finding in report["warnings"]:
            console.print(f"warning {finding['check']}: {finding['message']}", markup=False)
        console.print(
            f"{line} passed the data gate" + ("" if ran else " (nothing changed since the last run)")
        )
        console.print(f"Data Docs: {folder / 'docs' / 'index.html'}")

    answer({"line": line, "ran": ran, **report}, as_json, show)


@command
def train(
    lines: Annotated[list[str], typer.Argument()],
    force: Annotated[
        bool, typer.Option("--force", help="Run every stage even when nothing changed.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a line that another run holds.")] = False,
    as_json: bool = JSON,
) -> None:
    """Train lines: stages, publication, registration as challenger."""
    from novad.pipeline.train import train_lines

    workspace = Workspace.find()
    names = list(dict.fromkeys(lines))
    with progress(f"training {', '.join(names)}"):
        results = train_lines(workspace, names, force, wait)
    _report(workspace, results, as_json)


@command
def demo(
    workdir: Annotated[Path | None, typer.Option(help="Put every output into this folder.")] = None,
    as_json: bool = JSON,
) -> None:
    """The main job on made-up product lines: make them, train them, approve their first versions."""
    from novad.pipeline.demo import DEMO_LINES, approve_first_versions, prepare_workspace
    from novad.pipeline.train import train_lines

    workspace = prepare_workspace(workdir)
    with progress("training the demo lines; the first time takes a few minutes"):
        results = train_lines(workspace, list(DEMO_LINES), wait=True)
        approve_first_versions(workspace, results)
    _report(workspace, results, as_json)


def _report(workspace: Workspace, results: Any, as_json: bool) -> None:
    """Print what training did, and end with the worst exit code among the lines."""
    rows = [_row(workspace, result) for result in results]

    def show(console: Console) -> None:
        done = [row for row in rows if row["error"] is None]
        if done:
            console.print(_figures(done))
        if done and all(row["unchanged"] for row in done):
            console.print("Nothing to do: no image, setting or source file changed since the last run.")
        for row in rows:
            if row["error"] is not None:
                tell(f"{row['line']}: {row['error']}")
        console.print(where_to_look(workspace, [row["line"] for row in done]), soft_wrap=True)

    answer({"lines": rows}, as_json, show)
    if errors := [result.error for result in results if result.error is not None]:
        raise typer.Exit(max(exit_code(error) for error in errors))


def _row(workspace: Workspace, result: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "line": result.line,
        "version": result.version,
        "run_id": result.run_id,
        "ran": result.ran,
        "unchanged": result.unchanged,
        "seconds": result.seconds,
        "error": None if result.error is None else str(result.error),
        "code": 0 if result.error is None else exit_code(result.error),
    }
    if result.error is None:
        from novad.tracking import champion_event

        metrics = json.loads(
            (workspace.artifacts(result.line, "evaluate") / "metrics.json").read_text("utf-8")
        )
        champion = champion_event(workspace, result.line)
        row["champion"] = champion.version if champion else None
        row["scores"] = {
            kind: {key: metrics["scores"][kind][key] for key in ("image_auroc", "fnr_at_fpr_05")}
            for kind in KINDS
        }
    return row


def _figures(rows: list[dict[str, Any]]) -> Any:
    return table(
        "Test split: AUROC, and share of defects missed at 5 % false positives",
        (
            "line",
            *(f"{kind} {what}" for kind in KINDS for what in ("AUROC", "missed")),
            "version",
            "champion",
        ),
        [
            [
                row["line"],
                *(
                    figure(row["scores"][kind][key])
                    for kind in KINDS
                    for key in ("image_auroc", "fnr_at_fpr_05")
                ),
                row["version"],
                row["champion"],
            ]
            for row in rows
        ],
    )


def where_to_look(workspace: Workspace, lines: list[str]) -> str:
    """What to open next."""
    from novad.tracking.store import locate

    text = f"MLflow:    mlflow ui --backend-store-uri {locate(workspace).tracking_uri}"
    if lines:
        some = lines[0] if len(lines) == 1 else "LINE"
        text += f"\nHeatmaps:  {workspace.artifacts(some, 'evaluate') / 'heatmaps'}"
        text += f"\nData Docs: {workspace.artifacts(some, 'validate') / 'docs' / 'index.html'}"
    return text
