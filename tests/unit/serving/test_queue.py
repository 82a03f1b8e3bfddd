"""The scoring queue: one thread, order of arrival, whole requests, bounds, and an end that loses nothing."""

import threading
import time

import numpy as np
import pytest

from novad.images.fingerprint import GreyStatistics
from novad.serving.queue import Job, Picture, ScoringQueue
from novad.serving.request_error import RequestError


def _job(line: str = "metal", images: int = 1, side: int = 2) -> Job:
    picture = Picture("a.png", "ab" * 32, np.zeros((side, side, 3), np.uint8), GreyStatistics(0.0, 0.0, 0.0))
    return Job(line, (picture,) * images, time.perf_counter())


class Work:
    """Answers jobs and remembers in which batches and on which threads."""

    def __init__(self) -> None:
        self.batches: list[list[Job]] = []
        self.threads: set[int] = set()

    def __call__(self, jobs: list[Job]) -> None:
        self.batches.append(jobs)
        self.threads.add(threading.get_ident())
        for job in jobs:
            job.answer.set_result(len(self.batches))


def _queue(work: Work, max_images: int = 100, max_pixels: int = 10_000) -> ScoringQueue:
    return ScoringQueue(work, max_images, max_pixels, batch_images=4)


def test_what_waits_is_gathered_by_line_in_order_and_never_split() -> None:
    work = Work()
    queue = _queue(work)
    jobs = [
        _job(images=3), _job(images=1), _job(images=1), _job("glass", 2), _job(images=9), _job(images=1),
    ]  # fmt: skip
    for job in jobs:
        queue.submit(job)
    assert queue.images == 17
    queue.start()
    assert [job.answer.result(10) for job in jobs] == [1, 1, 2, 3, 4, 5]
    assert [job for batch in work.batches for job in batch] == jobs
    queue.close()
    assert queue.images == 0
    assert len(work.threads) == 1
    assert threading.get_ident() not in work.threads


@pytest.mark.parametrize(
    ("limits", "held", "more"),
    [
        ({"max_images": 5}, _job(images=4), _job(images=2)),
        ({"max_pixels": 100}, _job(side=9), _job(side=5)),
    ],
)
def test_a_full_queue_refuses_and_takes_again_when_there_is_room(
    limits: dict[str, int], held: Job, more: Job
) -> None:
    queue = _queue(Work(), **limits)
    queue.submit(held)
    with pytest.raises(RequestError) as caught:
        queue.submit(more)
    assert (caught.value.status, caught.value.reason) == (503, "queue_full")
    queue.require_room(1)
    queue.start()
    held.answer.result(10)
    queue.submit(more)
    assert more.answer.result(10) == 2
    queue.close()


def test_closing_finishes_what_was_taken_and_takes_nothing_more() -> None:
    work = Work()
    queue = _queue(work)
    jobs = [_job() for _ in range(20)]
    for job in jobs:
        queue.submit(job)
    queue.start()
    queue.close()
    assert all(job.answer.done() for job in jobs)
    with pytest.raises(RequestError) as caught:
        queue.submit(_job())
    assert (caught.value.status, caught.value.reason) == (503, "stopping")


def test_a_failed_batch_fails_its_jobs_and_not_the_next() -> None:
    def work(jobs: list[Job]) -> None:
        if jobs[0].line == "glass":
            raise ZeroDivisionError("no such luck")
        jobs[0].answer.set_result("judged")

    queue = ScoringQueue(work, 100, 10_000, 1)
    bad, good = _job("glass"), _job()
    queue.start()
    for job in (bad, good):
        queue.submit(job)
    with pytest.raises(ZeroDivisionError):
        bad.answer.result(10)
    assert good.answer.result(10) == "judged"
    queue.close()


def test_many_threads_get_each_its_own_answer() -> None:
    work = Work()
    queue = _queue(work)
    queue.start()
    jobs = [_job(f"line-{at % 3}") for at in range(60)]
    threads = [threading.Thread(target=queue.submit, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(job.answer.result(10) for job in jobs)
    assert all(len({job.line for job in batch}) == 1 and len(batch) <= 4 for batch in work.batches)
    queue.close()
