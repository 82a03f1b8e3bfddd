"""The scoring service: who may ask, what is taken, and how every outcome is told over HTTP."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from novad import __version__
from novad.config import Workspace
from novad.errors import NovadError, RefusedError, ServiceError
from novad.serving.access import requires
from novad.serving.answers import (
    ErrorAnswer,
    LinesAnswer,
    ScoreAnswer,
    line_answer,
    score_answer,
    table,
)
from novad.serving.champions import Champions
from novad.serving.console import SECURITY_HEADERS, add_console
from novad.serving.drift import DriftWatch
from novad.serving.image_store import ImageStore
from novad.serving.keys import KeyRing, Role
from novad.serving.metrics import Metrics
from novad.serving.queue import Job, Picture, ScoringQueue
from novad.serving.request_error import RequestError
from novad.serving.scoring import Judged, Scorer
from novad.serving.uploads import (
    Limits,
    Upload,
    decode_uploads,
    invocation_uploads,
    read_body,
    score_uploads,
)
from novad.tracking import LoggedDecision, find_decision

__all__ = ["Service", "build_app"]

_log = logging.getLogger(__name__)
_DECODERS = 2
_DOCUMENT_BYTES = 16_384

Document = TypeVar("Document", bound=BaseModel)
Parse = Callable[[bytes, str, Limits], list[Upload]]
Heatmap = Literal["familiarity", "novelty", "hybrid"]


class Service:
    """Champions, queue, keys and figures of one process, apart from HTTP.

    Args:
        workspace: of the lines.
        keys: file of API keys.
        shadow: let challengers score silently.
        limits: of requests and of the queue.
        images: where judged images are kept for reviewers; None keeps none.
    """

    def __init__(
        self,
        workspace: Workspace,
        keys: Path,
        shadow: bool = False,
        limits: Limits | None = None,
        images: ImageStore | None = None,
    ) -> None:
        self.workspace, self.limits, self.images = workspace, limits or Limits(), images
        self.keys, self.metrics = KeyRing(keys), Metrics()
        self.champions = Champions(workspace, shadow)
        self.drift = DriftWatch(workspace, self._served)
        self.queue = ScoringQueue(
            Scorer(workspace, self.champions, self.metrics.decided),
            self.limits.queued_images,
            self.limits.queued_pixels,
            self.limits.batch_images,
        )
        self._decoders = ThreadPoolExecutor(_DECODERS, "novad-decoding")

    def start(self) -> None:
        """Load the champions and begin to score.

        Raises:
            ServiceError: the event log cannot be read.
        """
        self.champions.start()
        self.queue.start()
        self.drift.start()

    def stop(self) -> None:
        """Finish what is queued, so that all of it is logged, and end every thread."""
        self.queue.close()
        self.drift.stop()
        self.champions.stop()
        self._decoders.shutdown()

    async def score(self, line: str, request: Request, parse: Parse, heatmap: str | None = None) -> Judged:
        """Decisions on the images in the body of a request.

        Raises:
            RequestError: whatever is wrong with the request, or the queue is full.
            ServiceError: the decisions could not be logged.
        """
        received = time.perf_counter()
        max_pixels = self._max_pixels(line)
        self.queue.require_room(1)
        body = await self._body(request, self.limits)
        content_type = request.headers.get("content-type", "")

        def prepared() -> tuple[list[Upload], tuple[Picture, ...]]:
            uploads = parse(body, content_type, self.limits)
            return uploads, decode_uploads(uploads, max_pixels, self.limits)

        loop = asyncio.get_running_loop()
        uploads, pictures = await loop.run_in_executor(self._decoders, prepared)
        job = Job(line, pictures, received, heatmap)
        self.queue.submit(job)
        judged: Judged = await asyncio.wrap_future(job.answer)
        if self.images is not None:
            kept = {picture.sha256: each.data for picture, each in zip(pictures, uploads, strict=True)}
            await loop.run_in_executor(self._decoders, self.images.keep, kept)
        return judged

    async def document(self, request: Request, model: type[Document]) -> Document:
        """The small JSON document in the body of a request.

        Raises:
            RequestError: whatever is wrong with it; 422 ``bad_document`` names the field.
        """
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RequestError(415, "media_type", "send application/json")
        most = min(_DOCUMENT_BYTES, self.limits.request_bytes)
        body = await self._body(request, replace(self.limits, request_bytes=most))
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            known = {each["loc"][0] for each in error.errors() if each["loc"]} & set(model.model_fields)
            names = ", ".join(sorted(map(str, known))) or "the document"
            message = f"{names}: missing, too long, or a value that is not allowed"
            raise RequestError(422, "bad_document", message) from None

    def only_line(self) -> str:
        """The line that is meant when none is named.

        Raises:
            RequestError: 400 ``line_needed``, when it is not the only one.
        """
        lines = self._served()
        if len(lines) != 1:
            raise RequestError(400, "line_needed", "not exactly one line is served; name it as ?line=NAME")
        return lines[0]

    def _served(self) -> list[str]:
        return [line for line, state in self.champions.states.items() if state.champion]

    def _max_pixels(self, line: str) -> int:
        if line not in self.champions.states:
            raise RequestError(404, "unknown_line", "no line of this name has a champion; see /v1/lines")
        champion = self.champions.state(line).champion
        if champion is None:
            raise RequestError(503, "no_champion", "this line has no champion in service")
        return champion.max_pixels

    async def _body(self, request: Request, limits: Limits) -> bytes:
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RequestError(415, "content_encoding", "send the body as it is, not compressed")
        try:
            async with asyncio.timeout(limits.body_seconds):
                return await read_body(request.stream(), request.headers.get("content-length"), limits)
        except TimeoutError:
            raise RequestError(408, "too_slow", "the body did not arrive in time") from None
        except ClientDisconnect:
            raise RequestError(400, "incomplete", "the body ended early") from None


def build_app(service: Service) -> FastAPI:
    """The service over HTTP; whoever runs it starts the service before and stops it after."""

    # No page of documentation: it would load its scripts from the internet.
    app = FastAPI(
        title="novad",
        version=__version__,
        description="Decisions of product lines' champions on images.",
        docs_url=None,
        redoc_url=None,
        responses={
            status: {"model": ErrorAnswer} for status in (400, 401, 403, 404, 409, 413, 415, 422, 500, 503)
        },
    )
    _tell_every_error(app)
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
        openapi_extra=_body({"images": ["iVBORw0KGgo..."]}, form=True),
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
        openapi_extra=_body({"dataframe_split": {"columns": ["image"], "data": [["iVBORw0KGgo..."]]}}),
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

    @app.get("/metrics", dependencies=[requires(service.keys, Role.REVIEW)], summary="Figures for Prometheus")
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


def _body(example: dict[str, Any], form: bool = False) -> dict[str, Any]:
    """The body of a request for the OpenAPI document: it is read by hand, to be held to its limits."""
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}, "example": example}}
    if form:
        files = {"type": "array", "items": {"type": "string", "format": "binary"}}
        content["multipart/form-data"] = {"schema": {"type": "object", "properties": {"images": files}}}
    return {"requestBody": {"required": True, "content": content}}


def _tell_every_error(app: FastAPI) -> None:
    async def told(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, NovadError) and not isinstance(error, RequestError):
            _log.error("a request failed: %s", error)
        return _response(error)

    for kind in (NovadError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, told)


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
