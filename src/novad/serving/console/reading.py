"""Routes that the console reads: lines, versions, events, decisions."""

from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

from fastapi import FastAPI, Query
from fastapi.responses import Response

from novad.config import Workspace
from novad.serving.access import requires
from novad.serving.answers import content
from novad.serving.console.answers import (
    Comparison,
    DecisionAnswer,
    DecisionsAnswer,
    HistoryAnswer,
    ReviewAnswer,
    VersionEvidence,
)
from novad.serving.console.comparison import comparison
from novad.serving.console.evidence import HEATMAPS, version_evidence
from novad.serving.console.overview import overview
from novad.serving.keys import Role
from novad.serving.request_error import RequestError
from novad.tracking import PublishedRun, history, latest_decisions, publications

if TYPE_CHECKING:
    from novad.serving.service import Service

__all__ = ["add_reading", "require_version"]

_PAGE = 50


def require_version(workspace: Workspace, line: str, version: int) -> None:
    """Raises:
    RequestError: 404 ``unknown_version``.
    """
    if not any(each.version == version for each in publications(workspace, line)):
        raise RequestError(404, "unknown_version", "no such version of such a line is registered")


def add_reading(app: FastAPI, service: "Service") -> None:
    """Add the routes; all ask for a key that may review."""
    workspace = service.workspace
    may_review = [requires(service.keys, Role.REVIEW)]

    @app.get("/v1/review", summary="Where every line stands, and what the key may do")
    def reviewed(role: Annotated[Role, requires(service.keys, Role.REVIEW)]) -> ReviewAnswer:
        return overview(workspace, service.champions.states, role, service.drift.reports)

    @app.get(
        "/v1/lines/{line}/history", dependencies=may_review, summary="Every event of a line, oldest first"
    )
    def happened(line: str) -> HistoryAnswer:
        return HistoryAnswer(events=history(workspace, line))

    @app.get(
        "/v1/lines/{line}/versions/{version}",
        dependencies=may_review,
        summary="Figures, gates, test scores and heatmaps of a version",
    )
    def version_known(line: str, version: int) -> VersionEvidence:
        require_version(workspace, line, version)
        return version_evidence(workspace, line, version)

    @app.get(
        "/v1/lines/{line}/comparison",
        dependencies=may_review,
        summary="What two versions differ by on the same test images",
    )
    def versions_compared(
        line: str, left: int, right: int, kind: Literal["familiarity", "novelty", "hybrid"] = "hybrid"
    ) -> Comparison:
        for version in (left, right):
            require_version(workspace, line, version)
        return comparison(workspace, line, left, right, kind)

    @app.get(
        "/v1/lines/{line}/versions/{version}/heatmaps/{name}",
        dependencies=may_review,
        response_class=Response,
        responses=content("image/png"),
        summary="A heatmap that was logged with a version, as PNG",
    )
    def heatmap_logged(line: str, version: int, name: str) -> Response:
        require_version(workspace, line, version)
        run = PublishedRun.open(workspace, line, version)
        if f"{HEATMAPS}/{name}" not in run.names(HEATMAPS):
            raise RequestError(404, "unknown_heatmap", "no heatmap of this name was logged")
        return Response(run.read(f"{HEATMAPS}/{name}"), media_type="image/png")

    @app.get("/v1/predictions", dependencies=may_review, summary="The latest decisions, filtered")
    def predictions(
        line: Annotated[str | None, Query(description="Of this line.")] = None,
        decision: Annotated[Literal["PASS", "REVIEW", "FAIL"] | None, Query()] = None,
        verdict: Annotated[
            Literal["none", "good", "defect"] | None, Query(description="The newest verdict on it.")
        ] = None,
        before: Annotated[UUID | None, Query(description="Go on after this prediction.")] = None,
    ) -> DecisionsAnswer:
        found = latest_decisions(
            workspace,
            line=line,
            decision=decision,
            verdict=verdict,
            before=str(before) if before else None,
            limit=_PAGE,
        )
        return DecisionsAnswer(
            decisions=[DecisionAnswer(decision=each.decision, verdict=each.verdict) for each in found],
            before=found[-1].decision.prediction_id if len(found) == _PAGE else None,
        )
