"""The scoring service of one process: what is taken from a request, and how it becomes decisions."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from novad.config import Workspace
from novad.serving.champions import Champions
from novad.serving.drift import DriftWatch
from novad.serving.image_store import ImageStore
from novad.serving.keys import KeyRing
from novad.serving.metrics import Metrics
from novad.serving.queue import Job, Picture, ScoringQueue
from novad.serving.request_error import RequestError
from novad.serving.scoring import Judged, Scorer
from novad.serving.uploads import (
    Limits,
    Upload,
    decode_uploads,
    read_body,
)

__all__ = ["Service"]

_DECODERS = 2
_DOCUMENT_BYTES = 16_384

Document = TypeVar("Document", bound=BaseModel)
Parse = Callable[[bytes, str, Limits], list[Upload]]


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
        self._bodies = asyncio.Semaphore(self.limits.bodies)

    def start(self) -> None:
        """Load the champions and begin to score.

        Raises:
            ConfigError: ``NOVAD_DEVICE`` names no device of this machine.
            ServiceError: the event log cannot be read.
        """
        if self.images is not None:
            self.images.keep({})  # Looks through the folder, before the first answer would wait for it.
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
        async with self._bodies:
            pictures, kept = await self._decoded(request, parse, max_pixels)
        job = Job(line, pictures, received, heatmap)
        self.queue.submit(job)
        judged: Judged = await asyncio.wrap_future(job.answer)
        if self.images is not None:
            loop = asyncio.get_running_loop()
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
        lines = list(self._served())
        if len(lines) != 1:
            raise RequestError(400, "line_needed", "not exactly one line is served; name it as ?line=NAME")
        return lines[0]

    def _served(self) -> dict[str, int]:
        states = self.champions.states
        return {line: state.champion.version for line, state in states.items() if state.champion}

    def _max_pixels(self, line: str) -> int:
        if line not in self.champions.states:
            raise RequestError(404, "unknown_line", "no line of this name has a champion; see /v1/lines")
        champion = self.champions.state(line).champion
        if champion is None:
            raise RequestError(503, "no_champion", "this line has no champion in service")
        return champion.max_pixels

    async def _decoded(
        self, request: Request, parse: Parse, max_pixels: int
    ) -> tuple[tuple[Picture, ...], dict[str, bytes]]:
        """Images in the body of a request; their files too, by digest, where images are kept."""
        body = await self._body(request, self.limits)
        content_type = request.headers.get("content-type", "")

        def prepared() -> tuple[tuple[Picture, ...], dict[str, bytes]]:
            uploads = parse(body, content_type, self.limits)
            pictures = decode_uploads(uploads, max_pixels, self.limits)
            if self.images is None:
                return pictures, {}
            return pictures, {each.sha256: one.data for each, one in zip(pictures, uploads, strict=True)}

        return await asyncio.get_running_loop().run_in_executor(self._decoders, prepared)

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
