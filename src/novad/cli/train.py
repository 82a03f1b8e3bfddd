"""``novad validate``, ``novad train`` and ``novad demo``."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novad.cli.outcome import DataRefusedError, tell
from novad.cli.output import JSON, answer, figure, progress, table, where_to_look
from novad.config import Workspace, line_settings
from novad.errors import NovadError, RefusedError, exit_code
from novad.images.report import told

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["demo", "train", "validate"]

KINDS = ("familiarity", "novelty", "hybrid")


def validate(line: Annotated[str, typer.Argument(help="Product line.")], as_json: bool = JSON) -> None:
    """Run the data gate of one line; every finding names its image. Exits 1 when the images are refused."""
    from novad.pipeline.train import validate_line

    workspace = Workspace.find()
    kept = workspace.state / "refused" / line / "report.json"
    before = _written(kept)
    try:
        with progress(f"validating {line}"):
            ran = validate_line(workspace, line)
    except RefusedError as error:
        if _written(kept) != before:
            details = {"line": line, **json.loads(kept.read_text("utf-8"))}
            raise DataRefusedError(str(error), details) from None
        raise
    folder = workspace.artifacts(line, "validate")
    report = _read(workspace, line, "validate", "report.json")

    def show(console: "Console") -> None:
        for title, part in (("Left out of", "left_out"), ("Warnings about", "warnings")):
            rows = [[each["check"], _some(each["images"]), each["message"]] for each in report.get(part, [])]
            if rows:
                console.print(table(f"{title} {line}", ("check", "images", "what"), rows))
        what = "" if ran else " (nothing changed since the last run)"
        console.print(f"{line} passed the data gate{what}", soft_wrap=True)
        console.print(", ".join(f"{count} {name}" for name, count in report["counts"].items()))
        console.print(f"Data Docs: {folder / 'docs' / 'index.html'}", soft_wrap=True)

    answer({"line": line, "ran": ran, **report}, as_json, show)


def train(
    lines: Annotated[list[str], typer.Argument(help="Product lines.")],
    force: Annotated[
        bool, typer.Option("--force", help="Run every stage even when nothing changed.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a line that another run holds.")] = False,
    if_due: Annotated[
        bool,
        typer.Option("--if-due", help="Only lines for which a cause holds, see `retrain` in params.yaml."),
    ] = False,
    as_json: bool = JSON,
) -> None:
    """Train lines: stages, publication, registration as challenger."""
    from novad.pipeline.retraining import train_due
    from novad.pipeline.train import train_lines

    workspace = Workspace.find()
    names = list(dict.fromkeys(lines))
    with progress(f"training {', '.join(names)}"):
        results = (train_due if if_due else train_lines)(workspace, names, force, wait)
    trained = {result.line for result in results}
    _report(workspace, results, {}, as_json, [name for name in names if name not in trained])


def demo(
    workdir: Annotated[Path | None, typer.Option(help="Put every output into this folder.")] = None,
    as_json: bool = JSON,
) -> None:
    """The main job on made-up product lines: make them, train them, approve their first versions."""
    from novad.pipeline.demo import DEMO_LINES, approve_first_versions, changed_images, prepare_workspace
    from novad.pipeline.train import train_lines

    with progress("making the demo images"):
        workspace = prepare_workspace(workdir)
        changed = changed_images(workspace)
    if changed:
        tell(f"warning: {changed}")
    with progress("training the demo lines; the first time takes a few minutes"):
        results = train_lines(workspace, list(DEMO_LINES), wait=True)
        refused = approve_first_versions(workspace, results)
    _report(workspace, results, refused, as_json)


def _report(
    workspace: Workspace,
    results: list[Any],
    refused: dict[str, RefusedError],
    as_json: bool,
    not_due: Sequence[str] = (),
) -> None:
    """Print what training did, and end with the worst exit code among the lines."""
    rows = [_row(workspace, result, refused.get(result.line)) for result in results]
    done = [row for row in rows if row["scores"] is not None]
    failed = [row for row in rows if row["error"] is not None]

    def show(console: "Console") -> None:
        if done:
            console.print(_figures(done))
        for sentence in (sentence for row in done for sentence in _sentences(row)):
            console.print(sentence, soft_wrap=True)
        if done and all(row["unchanged"] for row in rows):
            console.print("Nothing to do: no image, setting or source file changed since the last run.")
        for line in not_due:
            console.print(f"{line}: not due: no cause of lines.{line}.retrain holds anew", soft_wrap=True)
        console.print(where_to_look(workspace, [row["line"] for row in done]), soft_wrap=True)

    document: dict[str, Any] = {"lines": rows, "not_due": not_due}
    if failed:
        document |= {
            "error": "; ".join(row["error"] for row in failed),
            "code": max(row["code"] for row in failed),
        }
    answer(document, as_json, show)
    for row in failed:
        tell(f"novad: {row['error']}")
    if failed:
        raise typer.Exit(document["code"])


def _sentences(row: dict[str, Any]) -> Iterator[str]:
    """What is said of a line below the table."""
    if not row["unchanged"]:
        yield (
            f"{row['line']}: registered as version {row['version']} in {row['seconds']:.0f} s, "
            f"{len(row['ran'])} stages ran ({row['reason']})"
        )
    for sentence in told(row["left_out"]):
        yield f"{row['line']}: {sentence}"
    if row["warning"]:
        yield f"{row['line']}: {row['warning']}"


def _row(workspace: Workspace, result: Any, refused: RefusedError | None) -> dict[str, Any]:
    from novad.tracking import champion_event

    error: NovadError | None = result.error or refused
    row: dict[str, Any] = {
        "line": result.line,
        "version": result.version,
        "run_id": result.run_id,
        "ran": result.ran,
        "unchanged": result.unchanged,
        "reason": result.reason,
        "seconds": result.seconds,
        "champion": None,
        "scores": None,
        "left_out": [],
        "warning": None,
        "error": None if error is None else _named(result.line, str(error)),
        "code": 0 if error is None else exit_code(error),
    }
    if result.error is None:
        champion = champion_event(workspace, result.line)
        row["champion"] = champion.version if champion else None
        metrics = _read(workspace, result.line, "evaluate", "metrics.json")
        row["scores"] = _scores(metrics["scores"])
        row["left_out"] = _read(workspace, result.line, "validate", "report.json").get("left_out", [])
        row["warning"] = _warning(workspace, result.line)
    return row


def _named(line: str, message: str) -> str:
    return message if line in message.splitlines()[0] else f"{line}: {message}"


def _read(workspace: Workspace, line: str, stage: str, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((workspace.artifacts(line, stage) / name).read_text("utf-8"))
    return document


def _warning(workspace: Workspace, line: str) -> str | None:
    """Whether the thresholds promise less than the settings ask for, or had to be raised, in words."""
    from novad.stages.thresholds import threshold_warnings

    fusion = _read(workspace, line, "tune_fusion", "fusion.json")
    alpha = line_settings(workspace.params, line).tune_fusion.alpha
    return "; ".join(threshold_warnings(fusion, alpha)) or None


def _scores(found: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """The two figures of each score that the table shows."""
    return {kind: {key: found[kind][key] for key in ("image_auroc", "fnr_at_fpr_05")} for kind in KINDS}


def _figures(rows: list[dict[str, Any]]) -> Any:
    """One row per score of each line, so that the table fits an ordinary terminal."""
    shown = [
        [
            row["line"] if at == 0 else "",
            kind,
            figure(row["scores"][kind]["image_auroc"]),
            figure(row["scores"][kind]["fnr_at_fpr_05"]),
            row["version"] if at == 0 else "",
            _standing(row) if at == 0 else "",
        ]
        for row in rows
        for at, kind in enumerate(KINDS)
    ]
    columns = ("line", "score", "AUROC", "FNR at 5 % FPR", "version", "alias")
    return table("On the test split", columns, shown)


def _standing(row: dict[str, Any]) -> str:
    if row["champion"] == row["version"]:
        return "champion"
    return "challenger" if row["champion"] is None else f"challenger of {row['champion']}"


def _some(images: list[str], most: int = 5) -> str:
    more = f" and {len(images) - most} more" if len(images) > most else ""
    return ", ".join(images[:most]) + more


def _written(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.is_file() else None
