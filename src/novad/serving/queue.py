"""The one scoring queue of a process: bounded, in micro-batches, worked off by the one thread that scores."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from novad.serving.request_error import RequestError

if TYPE_CHECKING:
    from novad.images.fingerprint import GreyStatistics

__all__ = ["Job", "Picture", "ScoringQueue"]


@dataclass(frozen=True)
class Picture:
    """A decoded image of a request."""

    name: str
    sha256: str
    """Of the bytes that were decoded."""
    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    """(H, W, 3)."""
    grey: "GreyStatistics"


@dataclass(frozen=True)
class Job:
    """A request that waits for its decisions; it is never split over two batches."""

    line: str
    pictures: tuple[Picture, ...]
    received: float
    """``time.perf_counter`` when the request arrived."""
    heatmap: str | None = None
    """Kind of map to draw, or None."""
    answer: "Future[Any]" = field(default_factory=Future)

    @property
    def pixels(self) -> int:
        """Of all its pictures: what it holds in memory."""
        return sum(picture.pixels.shape[0] * picture.pixels.shape[1] for picture in self.pictures)


class ScoringQueue:
    """Hands jobs to ``work`` in batches of one line, in order of arrival, always on the same thread.

    Nobody waits for a batch to fill: while one is computed, the next one gathers.

    Args:
        work: answers every job of a batch; what it raises answers those that are left.
        max_images: images that may wait.
        max_pixels: pixels that may wait, a bound on memory.
        batch_images: a batch takes no further job beyond this.
    """

    def __init__(
        self, work: Callable[[list[Job]], None], max_images: int, max_pixels: int, batch_images: int
    ) -> None:
        self._work = work
        self._max_images, self._max_pixels, self._batch_images = max_images, max_pixels, batch_images
        self._waiting: deque[Job] = deque()
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._run, name="novad-scoring", daemon=True)

    def start(self) -> None:
        """Begin to work; jobs may have been submitted before."""
        self._thread.start()

    def close(self) -> None:
        """Take nothing more, finish what was taken, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def images(self) -> int:
        """How many images wait."""
        with self._changed:
            return self._held()[0]

    def require_room(self, images: int, pixels: int = 0) -> None:
        """Raises:
        RequestError: 503 ``queue_full``, or ``stopping``.
        """
        with self._changed:
            self._require_room(images, pixels)

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue.

        Raises:
            RequestError: 503 ``queue_full``, or ``stopping``.
        """
        with self._changed:
            self._require_room(len(job.pictures), job.pixels)
            self._waiting.append(job)
            self._changed.notify()

    def _require_room(self, images: int, pixels: int) -> None:
        if self._closed:
            raise RequestError(503, "stopping", "the service is stopping")
        held_images, held_pixels = self._held()
        if held_images + images > self._max_images or held_pixels + pixels > self._max_pixels:
            raise RequestError(503, "queue_full", "too many images are waiting; try again in a moment")

    def _held(self) -> tuple[int, int]:
        return sum(len(job.pictures) for job in self._waiting), sum(job.pixels for job in self._waiting)

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                self._work(batch)
            except Exception as error:
                for job in batch:
                    if not job.answer.done():
                        job.answer.set_exception(error)

    def _next_batch(self) -> list[Job]:
        """The first jobs, all of one line; empty when the queue is closed and worked off."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch: list[Job] = []
            images = 0
            while self._waiting and (not batch or self._joins(self._waiting[0], batch[0], images)):
                batch.append(self._waiting.popleft())
                images += len(batch[-1].pictures)
            return batch

    def _joins(self, job: Job, first: Job, images: int) -> bool:
        return job.line == first.line and images + len(job.pictures) <= self._batch_images
