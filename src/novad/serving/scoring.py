"""What the scoring thread does with a batch: judge, log, answer, and judge again in the shadow."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from novad.config import Workspace
from novad.evaluation.pictures import heatmap, png_text
from novad.serving.champions import Champions, Served
from novad.serving.queue import Job, Picture
from novad.serving.request_error import RequestError
from novad.tracking import LoggedDecision, decide_now, log_decisions

if TYPE_CHECKING:
    from novad.vision import Detection

__all__ = ["Judged", "Scorer"]

_log = logging.getLogger(__name__)
_HEATMAP_SIDE = 1024


@dataclass(frozen=True)
class Judged:
    """A job's answer: one record, distance and picture per image, all by the version named."""

    model: Served
    decisions: tuple[LoggedDecision, ...]
    nearest_distances: tuple[float, ...]
    heatmaps: tuple[str | None, ...]
    """Base64 text of a PNG, where one was asked for."""


class Scorer:
    """Answers batches; an answer is given only once its decisions are in the log.

    Args:
        workspace: of the decision log.
        champions: who judges.
        told: called with all decisions of a batch once they are logged.
    """

    def __init__(
        self,
        workspace: Workspace,
        champions: Champions,
        told: Callable[[Sequence[LoggedDecision]], None],
    ) -> None:
        self._workspace, self._champions, self._told = workspace, champions, told

    def __call__(self, jobs: list[Job]) -> None:
        """Answer every job of one line.

        Raises:
            RequestError: 503 ``no_champion``.
            ServiceError: the decisions cannot be logged.
        """
        # One look: the version that an answer names is the one that computed it.
        state = self._champions.state(jobs[0].line)
        if state.champion is None:
            raise RequestError(503, "no_champion", "this line has no champion in service")
        wanted = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
        judged = self._judged(state.champion, wanted)
        self._record([decision for _, each in judged for decision in each.decisions])
        for job, each in judged:
            job.answer.set_result(each)
        if state.challenger is not None:
            self._shadow(state.challenger, [job for job, _ in judged])

    def _judged(self, model: Served, jobs: list[Job]) -> list[tuple[Job, Judged]]:
        """Jobs with their answers; one that cannot be judged is told so and does not spoil the others."""
        try:
            return _judge(model, jobs)
        except Exception as error:
            if len(jobs) == 1:
                _log.exception("an image could not be judged")
                jobs[0].answer.set_exception(error)
                return []
        return [pair for job in jobs for pair in self._judged(model, [job])]

    def _shadow(self, model: Served, jobs: list[Job]) -> None:
        """Judge without telling anybody; nothing that happens here may touch the line."""
        try:
            quiet = [replace(job, heatmap=None) for job in jobs]
            decisions = [each for _, judged in _judge(model, quiet) for each in judged.decisions]
            self._record([replace(each, shadow=True) for each in decisions])
        except Exception:
            _log.exception("%s: version %d failed in the shadow", model.line, model.version)

    def _record(self, decisions: list[LoggedDecision]) -> None:
        log_decisions(self._workspace, decisions)
        self._told(decisions)


def _judge(model: Served, jobs: Sequence[Job]) -> list[tuple[Job, Judged]]:
    detections = model.detector.score(picture.pixels for job in jobs for picture in job.pictures)
    return [(job, _answer(model, job, [next(detections) for _ in job.pictures])) for job in jobs]


def _answer(model: Served, job: Job, detections: list["Detection"]) -> Judged:
    pairs = list(zip(job.pictures, detections, strict=True))
    return Judged(
        model=model,
        decisions=tuple(_decision(model, job, picture, detection) for picture, detection in pairs),
        nearest_distances=tuple(detection.nearest.distance for detection in detections),
        heatmaps=tuple(_heatmap(model, job.heatmap, picture, detection) for picture, detection in pairs),
    )


def _decision(model: Served, job: Job, picture: Picture, detection: "Detection") -> LoggedDecision:
    return decide_now(
        detection,
        picture.grey,
        line=model.line,
        version=model.version,
        detector_digest=model.digest,
        image_sha256=picture.sha256,
        source=picture.name,
        latency_ms=1000 * (time.perf_counter() - job.received),
    )


def _heatmap(model: Served, kind: str | None, picture: Picture, detection: "Detection") -> str | None:
    if kind is None:
        return None
    return png_text(heatmap(model.detector, kind, picture.pixels, detection, _HEATMAP_SIDE))
