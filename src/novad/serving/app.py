"""The scoring service over HTTP: its routes, and how every outcome is told."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from novad import __version__
from novad.errors import NovadError, RefusedError, ServiceError
from novad.serving.access import requires
from novad.serving.answers import (
    ErrorAnswer,
    LinesAnswer,
    ScoreAnswer,
    content,
    line_answer,
    score_answer,
    table,
)
from novad.serving.bodies import INVOCATION_BODY, SCORE_BODY
from novad.serving.console import SECURITY_HEADERS, add_console
from novad.serving.keys import Role
from novad.serving.request_error import RequestError
from novad.serving.service import Service
from novad.serving.uploads import invocation_uploads, score_uploads
from novad.tracking import LoggedDecision, find_decision

__all__ = ["build_app"]

_log = logging.getLogger(__name__)

# Whoever ends a service that does not answer here must not end one that has much to do.
_UNBOUNDED = ("/healthz", "/readyz")
_STATUSES = (400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 500, 503)

Heatmap = Literal["familiarity", "novelty", "hybrid"]


def build_app(service: Service) -> FastAPI:
    """The service over HTTP; whoever runs it starts the service before and stops it after."""

    # No page of documentation: it would load its scripts from the internet.
    app = FastAPI(
        title="novad",
        version=__version__,
        description="Decisions of product lines' champions on images.",
        docs_url=None,
        redoc_url=None,
        responses={status: {"model": ErrorAnswer} for status in _STATUSES},
    )
    _tell_every_error(app)
    _bound_requests(app, service)
    _count_every_answer(app, service)
    _add_scoring(app, service)
    _add_looking(app, service)
    add_console(app, service)
    return app


def _add_scoring(app: FastAPI, service: Service) -> None:
    may_score = [requires(service.keys, Role.SCORE)]

    @app.post(
        "/v1/lines/{line}/score",
        response_model=ScoreAnswer,
        dependencies=may_score,
        openapi_extra=SCORE_BODY,
        summary="PASS, REVIEW or FAIL for one or many images",
    )
    async def score(
        line: str,
        request: Request,
        heatmap: Annotated[Heatmap | None, Query(description="Draw this map, as PNG in base64.")] = None,
    ) -> ScoreAnswer:
        return score_answer(await service.score(line, request, score_uploads, heatmap))

    @app.post(
        "/invocations",
        dependencies=may_score,
        openapi_extra=INVOCATION_BODY,
        summary="The same in MLflow's form",
    )
    async def invocations(
        request: Request,
        line: Annotated[str | None, Query(description="Needed when several lines are served.")] = None,
    ) -> dict[str, list[dict[str, Any]]]:
        name = service.only_line() if line is None else line
        return table(await service.score(name, request, invocation_uploads))


def _add_looking(app: FastAPI, service: Service) -> None:
    def lines() -> LinesAnswer:
        states = service.champions.states
        return LinesAnswer(lines=[line_answer(line, states[line]) for line in sorted(states)])

    @app.get(
        "/v1/lines", dependencies=[requires(service.keys, Role.SCORE)], summary="Lines and their champions"
    )
    def listed() -> LinesAnswer:
        return lines()

    @app.post(
        "/v1/refresh",
        dependencies=[requires(service.keys, Role.ADMIN)],
        summary="Follow the event log now, not within a second",
    )
    def refreshed() -> LinesAnswer:
        service.champions.refresh(retry=True)
        return lines()

    @app.get(
        "/v1/predictions/{prediction_id}",
        dependencies=[requires(service.keys, Role.REVIEW)],
        summary="A logged decision",
    )
    def prediction(prediction_id: UUID) -> LoggedDecision:
        found = find_decision(service.workspace, str(prediction_id))
        if found is None:
            raise RequestError(404, "unknown_prediction", "no decision of this id is in the log")
        return found

    @app.get(
        "/metrics",
        dependencies=[requires(service.keys, Role.REVIEW)],
        response_class=Response,
        responses=content("text/plain"),
        summary="Figures for Prometheus",
    )
    def metrics() -> Response:
        text = service.metrics.text(service.champions.states, service.queue.images, service.drift.reports)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/healthz", summary="The process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="A champion is loaded and the queue takes images")
    async def readyz() -> dict[str, str]:
        service.queue.require_room(1)
        if not any(state.champion for state in service.champions.states.values()):
            raise RequestError(503, "no_champion", "no line has a champion in service")
        return {"status": "ready"}


def _tell_every_error(app: FastAPI) -> None:
    async def told(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, NovadError) and not isinstance(error, RequestError):
            _log.error("a request failed: %s", error)
        return _response(error)

    for kind in (NovadError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, told)


def _bound_requests(app: FastAPI, service: Service) -> None:
    in_flight = 0

    @app.middleware("http")
    async def bounded(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        nonlocal in_flight
        if request.url.path in _UNBOUNDED:
            return await answer(request)
        if in_flight >= service.limits.requests:
            return _response(RequestError(503, "too_busy", "too many requests at once; try again soon"))
        in_flight += 1
        try:
            return await answer(request)
        finally:
            in_flight -= 1


def _count_every_answer(app: FastAPI, service: Service) -> None:
    @app.middleware("http")
    async def counted(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        begun = time.perf_counter()
        try:
            response = await answer(request)
        except Exception as error:
            _log.exception("a request failed")
            response = _response(error)
        route = getattr(request.scope.get("route"), "path", "unmatched")
        service.metrics.answered(route, response.status_code, time.perf_counter() - begun)
        response.headers.update(SECURITY_HEADERS)
        return response


def _response(error: Exception) -> JSONResponse:
    refusal = _refusal(error)
    problem = {"code": refusal.reason, "message": str(refusal), "image": refusal.image}
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(refusal.status)
    return JSONResponse({"error": problem}, refusal.status, headers)


def _refusal(error: Exception) -> RequestError:
    """What a caller is told about an error; only refusals bring words of their own."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, RequestValidationError):
        return RequestError(422, "bad_query", "a parameter of the address has a value that is not allowed")
    if isinstance(error, HTTPException):
        return RequestError(error.status_code, f"http_{error.status_code}", "nothing here does that")
    if isinstance(error, ServiceError):
        return RequestError(503, "log_unavailable", "the decision log cannot be used; nothing was decided")
    if isinstance(error, RefusedError):
        return RequestError(503, "refused", "a record of this line was changed; see the service's log")
    return RequestError(500, "internal", "this is a fault of novad itself; see the service's log")
