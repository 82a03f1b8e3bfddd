"""Images as a version sees them: maps and nearest normal patch, computed again when a reviewer asks."""

import functools
import io
from threading import Lock
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from fastapi import FastAPI
from fastapi import Path as PathParameter
from fastapi.responses import Response

from novad.config import Workspace, line_settings
from novad.errors import ConfigError, ImageError, IntegrityError
from novad.evaluation.pictures import heatmap, patch, png_text, small
from novad.images.decode import Pixels, decode_bytes
from novad.serving.access import requires
from novad.serving.answers import content
from novad.serving.console.answers import NearestView, View
from novad.serving.console.reading import require_version
from novad.serving.image_store import ImageStore
from novad.serving.keys import Role
from novad.serving.request_error import RequestError
from novad.tracking import PublishedRun, find_decision, resolve

if TYPE_CHECKING:
    from novad.serving.service import Service
    from novad.vision import Detector, NearestNormal

__all__ = ["Viewer", "add_viewing"]

_KINDS = ("familiarity", "novelty", "hybrid")
_SIDE = 512
_THUMBNAIL_SIDE = 224
_DETECTORS = 2
_WAIT_SECONDS = 20.0
_MAX_PIXELS = 64_000_000

Sha256 = Annotated[str, PathParameter(pattern="^[0-9a-f]{64}$")]


class Viewer:
    """Judges single images again for reviewers, one at a time and apart from the scoring queue.

    Args:
        workspace: of the lines.
        images: judged images that were kept; None when none are.
    """

    def __init__(self, workspace: Workspace, images: ImageStore | None) -> None:
        self._workspace, self._images = workspace, images
        self._judging = Lock()
        # Champion and challenger of the line that is being reviewed.
        self._detector = functools.lru_cache(_DETECTORS)(self._load)

    def view(self, line: str, version: int, sha256: str) -> View:
        """The image, its maps and the nearest normal patch, as a version sees them.

        Raises:
            RequestError: 404 ``no_image``, 422 ``image_refused``, 503 ``busy``.
            IntegrityError: a file of the version is not the one that was published.
        """
        run = PublishedRun.open(self._workspace, line, version)
        pixels = self._pixels(run, sha256)
        if not self._judging.acquire(timeout=_WAIT_SECONDS):
            raise RequestError(503, "busy", "other images are being looked at; try again in a moment")
        try:
            detector = self._detector(line, version)
            [detection] = detector.score([pixels])
        finally:
            self._judging.release()
        return View(
            line=line,
            version=version,
            sha256=sha256,
            width=pixels.shape[1],
            height=pixels.shape[0],
            familiarity=detection.familiarity,
            novelty=detection.novelty,
            hybrid=detection.hybrid,
            image=png_text(small(pixels, _SIDE)),
            maps={kind: png_text(heatmap(detector, kind, pixels, detection, _SIDE)) for kind in _KINDS},
            nearest=self._nearest(run, pixels, detection.nearest),
        )

    def thumbnail(self, line: str, version: int, sha256: str) -> bytes:
        """The image, small, as PNG.

        Raises:
            RequestError: 404 ``no_image``, 422 ``image_refused``.
            IntegrityError: the version's record of images is not the one that was published.
        """
        run = PublishedRun.open(self._workspace, line, version)
        stream = io.BytesIO()
        small(self._pixels(run, sha256), _THUMBNAIL_SIDE).save(stream, "PNG")
        return stream.getvalue()

    def _nearest(self, run: PublishedRun, pixels: Pixels, nearest: "NearestNormal") -> NearestView:
        try:
            found = self._pixels(run, nearest.sha256)
            normal = png_text(patch(found, nearest.grid, (nearest.row, nearest.column)))
        except RequestError:
            normal = None
        return NearestView(
            image=nearest.image,
            sha256=nearest.sha256,
            distance=nearest.distance,
            patch=png_text(patch(pixels, nearest.grid, nearest.place)),
            normal=normal,
        )

    def _pixels(self, run: PublishedRun, sha256: str) -> Pixels:
        kept = self._images.read(sha256) if self._images is not None else None
        data = kept or run.image(sha256)
        if data is None:
            message = "the image is not at hand: the service kept none, and it is not among the line's data"
            raise RequestError(404, "no_image", message)
        try:
            return decode_bytes(data, "the image", self._max_pixels(run.line))
        except ImageError:
            raise RequestError(422, "image_refused", "the image cannot be decoded any more") from None

    def _max_pixels(self, line: str) -> int:
        try:
            return line_settings(self._workspace.params, line).validation.max_pixels
        except ConfigError:  # A line that was taken out of the settings can still be reviewed.
            return _MAX_PIXELS

    def _load(self, line: str, version: int) -> "Detector":
        return resolve(self._workspace, line, version).load()


def add_viewing(app: FastAPI, service: "Service", viewer: Viewer) -> None:
    """Add the routes; all ask for a key that may review."""
    may_review = [requires(service.keys, Role.REVIEW)]

    @app.get(
        "/v1/lines/{line}/versions/{version}/images/{sha256}",
        dependencies=may_review,
        summary="An image as a version sees it: maps and nearest normal patch",
    )
    def image_seen(line: str, version: int, sha256: Sha256) -> View:
        require_version(service.workspace, line, version)
        return viewer.view(line, version, sha256)

    @app.get(
        "/v1/lines/{line}/versions/{version}/images/{sha256}/thumbnail",
        dependencies=may_review,
        response_class=Response,
        responses=content("image/png"),
        summary="An image, small, as PNG",
    )
    def image_small(line: str, version: int, sha256: Sha256) -> Response:
        require_version(service.workspace, line, version)
        return Response(viewer.thumbnail(line, version, sha256), media_type="image/png")

    @app.get(
        "/v1/predictions/{prediction_id}/view",
        dependencies=may_review,
        summary="The image of a decision as the version that judged it sees it",
    )
    def prediction_seen(prediction_id: UUID) -> View:
        found = find_decision(service.workspace, str(prediction_id))
        if found is None:
            raise RequestError(404, "unknown_prediction", "no decision of this id is in the log")
        require_version(service.workspace, found.line, found.version)
        if resolve(service.workspace, found.line, found.version).detector_digest != found.detector_digest:
            raise IntegrityError(f"{prediction_id}: judged by another detector than is registered")
        return viewer.view(found.line, found.version, found.image_sha256)
