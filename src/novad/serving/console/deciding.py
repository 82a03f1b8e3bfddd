"""Routes by which people decide: approve, reject, roll back, and say what a part really was."""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.concurrency import run_in_threadpool

from novad.errors import ConfigError, IntegrityError, RefusedError, ServiceError
from novad.serving.access import requires
from novad.serving.console.reading import require_version
from novad.serving.keys import Role
from novad.serving.request_error import RequestError
from novad.tracking import (
    Event,
    OperatorVerdict,
    find_decision,
    give_verdict,
    promote,
    publications,
    reject,
    rollback,
    verdicts_on,
)
from novad.tracking.evidence import VERSIONS
from novad.tracking.proposal import Name, Reason
from novad.tracking.verdicts import Finding

if TYPE_CHECKING:
    from novad.serving.service import Service

__all__ = ["add_deciding"]

_log = logging.getLogger(__name__)


class _Signed(BaseModel):
    """What every decision carries."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(examples=["M. Ito"])
    reason: Reason = Field(examples=["0 of 40 escapes on the audit set"])


class _OnLine(_Signed):
    seen: int = Field(ge=0, description="Newest event of the line that was known; see /v1/review.")


class OnVersion(_OnLine):
    """A decision on one version."""

    version: int = Field(ge=VERSIONS.start, lt=VERSIONS.stop)


class Rollback(_OnLine):
    """Back to an earlier champion."""

    to: int | None = Field(
        None, ge=VERSIONS.start, lt=VERSIONS.stop, description="None: the one before the present champion."
    )


class VerdictGiven(_Signed):
    """What a part really was."""

    verdict: Finding
    defect_type: Name | None = None

    @model_validator(mode="after")
    def _good_has_no_defect(self) -> "VerdictGiven":
        if self.verdict == "good" and self.defect_type is not None:
            raise ValueError("a good part has no defect type")
        return self


def add_deciding(app: FastAPI, service: "Service") -> None:
    """Add the routes."""
    _add_governance(app, service)
    _add_verdicts(app, service)


def _add_governance(app: FastAPI, service: "Service") -> None:
    workspace = service.workspace
    may_decide = [requires(service.keys, Role.ADMIN)]

    for word, name, act, summary in (
        ("promote", "promoted", promote, "Make a version the champion, if every gate agrees"),
        ("reject", "rejected", reject, "Turn a version down"),
    ):
        app.post(
            f"/v1/lines/{{line}}/{word}",
            name=name,
            dependencies=may_decide,
            openapi_extra=_body(OnVersion),
            summary=summary,
        )(_on_version(service, act))

    @app.post(
        "/v1/lines/{line}/rollback",
        dependencies=may_decide,
        openapi_extra=_body(Rollback),
        summary="Bring an earlier champion back",
    )
    async def rolled_back(line: str, request: Request) -> Event:
        told = await service.document(request, Rollback)
        if not publications(workspace, line):
            raise RequestError(404, "unknown_line", "no version of such a line is registered")
        return await _decided(rollback, workspace, line, told.name, told.reason, told.to, told.seen)


def _on_version(service: "Service", act: Callable[..., Event]) -> Callable[..., Awaitable[Event]]:
    """A route that decides on one version."""

    async def decided(line: str, request: Request) -> Event:
        told = await service.document(request, OnVersion)
        require_version(service.workspace, line, told.version)
        return await _decided(act, service.workspace, line, told.version, told.name, told.reason, told.seen)

    return decided


def _add_verdicts(app: FastAPI, service: "Service") -> None:
    workspace = service.workspace
    may_review = [requires(service.keys, Role.REVIEW)]

    @app.get(
        "/v1/predictions/{prediction_id}/verdicts",
        dependencies=may_review,
        summary="What people said about a decision, oldest first",
    )
    def said(prediction_id: UUID) -> list[OperatorVerdict]:
        return verdicts_on(workspace, [str(prediction_id)]).get(str(prediction_id), [])

    @app.post(
        "/v1/predictions/{prediction_id}/verdict",
        dependencies=may_review,
        openapi_extra=_body(VerdictGiven),
        summary="Say what the part of a decision really was; of several verdicts the newest counts",
    )
    async def given(prediction_id: UUID, request: Request) -> OperatorVerdict:
        told = await service.document(request, VerdictGiven)
        found = await run_in_threadpool(find_decision, workspace, str(prediction_id))
        if found is None:
            raise RequestError(404, "unknown_prediction", "no decision of this id is in the log")
        return await run_in_threadpool(
            give_verdict, workspace, found, told.verdict, told.name, told.reason, told.defect_type
        )


async def _decided(act: Callable[..., Event], *arguments: Any) -> Event:
    """A decision, or in words why it is refused or what failed: who may decide may know.

    The event is written before MLflow's alias follows, so that a failure does not always mean that nothing
    was decided; the error itself tells.
    """
    try:
        return await run_in_threadpool(act, *arguments)
    except IntegrityError:
        raise
    except RefusedError as error:
        raise RequestError(409, "refused", str(error)) from None
    except (ServiceError, ConfigError) as error:
        _log.error("a decision failed: %s", error)
        reason = "service_failed" if isinstance(error, ServiceError) else "misconfigured"
        # MLflow's errors end with a statement and its values, and those may be what was sent.
        raise RequestError(503, reason, str(error).partition("\n[SQL")[0]) from None


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """The body for the OpenAPI document: it is read by hand, to be held to its limits."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": True, "content": content}}
