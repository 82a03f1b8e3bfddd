"""Which images joined a line's data by acceptance: read from the event log, where a person signed for it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from novad.config import Workspace
from novad.tracking.events import Event, champion_of, intact_events
from novad.tracking.published import PublishedRun

__all__ = ["DATA_ACCEPTED", "Acceptance", "acceptances", "verified_since_champion"]

DATA_ACCEPTED = "data-accepted"


@dataclass(frozen=True)
class Acceptance:
    """One image, taken into a line's data."""

    line: str
    sequence: int
    """The event."""
    at: str
    approver: str
    reason: str
    sha256: str
    path: str
    """Below the line's data folder."""
    prediction_id: str
    """The decision on which the verdict was given."""
    data_after: str
    """DVC's digest of the data that holds it."""


def acceptances(workspace: Workspace, line: str | None = None) -> list[Acceptance]:
    """Every image that was accepted, of one line or of all, in order of line and event.

    Raises:
        IntegrityError: names every event that was edited, moved or removed.
        ServiceError: the database cannot be reached.
    """
    return [each for event in intact_events(workspace, line) for each in _accepted(event)]


def verified_since_champion(workspace: Workspace, line: str) -> int:
    """Number of accepted images that the champion has not learned from: what a retraining would bring.

    Without a champion all of them count.

    Raises:
        IntegrityError: the event log, or the champion's record of images, was changed.
        ServiceError: the store cannot be reached.
    """
    chain = intact_events(workspace, line)
    accepted = {each.sha256 for event in chain for each in _accepted(event)}
    champion = champion_of(chain)
    if not accepted or champion is None or champion.version is None:
        return len(accepted)
    run = PublishedRun.open(workspace, line, champion.version)
    known = run.table("validate/manifest.parquet", ["sha256"]).column("sha256").to_pylist()
    return len(accepted - set(known))


def _accepted(event: Event) -> Iterator[Acceptance]:
    if event.kind != DATA_ACCEPTED:
        return
    images: list[dict[str, Any]] = event.detail["images"]
    for image in images:
        yield Acceptance(
            line=event.line,
            sequence=event.sequence,
            at=event.at,
            approver=event.actor,
            reason=event.reason,
            sha256=image["sha256"],
            path=image["path"],
            prediction_id=image["prediction_id"],
            data_after=event.detail["data"]["after"],
        )
