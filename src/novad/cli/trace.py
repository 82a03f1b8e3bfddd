"""``novad trace``: what lies behind a decision, and what an image touched."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novad.cli.output import JSON, answer, figure, table, where_to_look
from novad.config import Workspace

if TYPE_CHECKING:
    from rich.console import Console

    from novad.tracking import ImageTrace, ModelOrigin, OperatorVerdict, PredictionTrace

__all__ = ["origin_rows", "trace"]


def trace(
    what: Annotated[str, typer.Argument(metavar="IMAGE-OR-SHA256-OR-PREDICTION-ID", help="What to follow.")],
    as_json: bool = JSON,
) -> None:
    """Follow a prediction to its model, data and approver, or an image to every decision and version."""
    from novad.tracking import PredictionTrace
    from novad.tracking import trace as follow

    workspace = Workspace.find()
    found = follow(workspace, what)
    kind = "prediction" if isinstance(found, PredictionTrace) else "image"

    def show(console: "Console") -> None:
        if isinstance(found, PredictionTrace):
            _show_prediction(console, found)
        else:
            _show_image(console, found)
        console.print(where_to_look(workspace), soft_wrap=True)

    answer({"kind": kind, **asdict(found)}, as_json, show)


def origin_rows(model: "ModelOrigin") -> list[list[Any]]:
    """What a version was made from, for a table of two columns."""
    return [
        ["detector", model.detector_digest],
        ["run", model.run_id],
        ["dataset", model.dataset_sha256],
        ["images", ", ".join(f"{count} {split}" for split, count in sorted(model.images.items()))],
        ["code", model.git_commit + (" (with local changes)" if model.git_dirty == "true" else "")],
        ["requirements.lock", model.requirements_lock],
        *(
            [f"dvc {stage}", f"{path} {digest}"]
            for stage, record in model.dvc.items()
            for path, digest in record["deps"].items()
        ),
    ]


def _show_prediction(console: "Console", found: "PredictionTrace") -> None:
    prediction, model, approval = found.prediction, found.model, found.approval
    rows: list[list[Any]] = [
        ["decision", f"{prediction.decision}, hybrid {prediction.hybrid:.3f}, p {prediction.p_value:.3f}"],
        ["image", f"{prediction.source} (sha256 {prediction.image_sha256})"],
        ["at", prediction.at + (" (shadow: nobody was told)" if prediction.shadow else "")],
        ["model", f"{model.line} version {model.version}"],
        ["approved", f"{approval.approver} on {approval.at[:19]}: {approval.reason}" if approval else None],
        *([["champion until", approval.until[:19]]] if approval and approval.until else []),
        *([f"verdict of {each.at[:19]}", _said(each)] for each in found.verdicts),
        ["nearest normal", f"{prediction.nearest_image} (sha256 {prediction.nearest_sha256})"],
        *origin_rows(model),
    ]
    console.print(table(f"Prediction {prediction.prediction_id}", ("", ""), rows))


def _said(verdict: "OperatorVerdict") -> str:
    kind = f" ({verdict.defect_type})" if verdict.defect_type else ""
    return f"{verdict.verdict}{kind}, {verdict.actor}: {verdict.reason}"


def _show_image(console: "Console", found: "ImageTrace") -> None:
    decisions = [
        [each.at[:19], each.line, each.version, each.decision, figure(each.hybrid), each.prediction_id]
        for each in found.decisions
    ]
    versions = [[each.line, each.version, each.split, each.path] for each in found.versions]
    columns = ("at", "line", "version", "decision", "hybrid", "prediction")
    console.print(table(f"Decisions on image {found.sha256}", columns, decisions))
    if found.verdicts:
        said = [[each.at[:19], _said(each), each.prediction_id] for each in found.verdicts]
        console.print(table("Verdicts on it", ("at", "verdict", "prediction"), said))
    if found.acceptances:
        accepted = [
            [each.at[:19], each.line, each.sequence, f"{each.approver}: {each.reason}", each.path]
            for each in found.acceptances
        ]
        console.print(table("Accepted as data", ("at", "line", "event", "approved", "path"), accepted))
    console.print(table("Versions that used it", ("line", "version", "split", "path"), versions))
