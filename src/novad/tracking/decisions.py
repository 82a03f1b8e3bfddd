"""The decision log: which version judged which image, when, and how; one SQL row per decision."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from sqlalchemy import ColumnElement, func, insert, select

from novad.config import Workspace
from novad.tracking.database import DECISIONS, present_columns, reading, writing
from novad.tracking.store import locate

if TYPE_CHECKING:
    from novad.images.fingerprint import GreyStatistics
    from novad.vision import Detection

__all__ = [
    "LoggedDecision",
    "decide_now",
    "decisions_of",
    "decisions_on",
    "find_decision",
    "last_decisions",
    "log_decisions",
]

_SOURCE_CHARACTERS = 1000
# SQLite takes some ten thousand values in one statement.
_ASKED_AT_ONCE = 1000


@dataclass(frozen=True)
class LoggedDecision:
    """One judgement of one image."""

    prediction_id: str
    """A random UUID: the handle by which answer, log and trace are one."""
    at: str
    """UTC, ISO 8601 with microseconds."""
    line: str
    version: int
    detector_digest: str
    image_sha256: str
    """Of the bytes that were decoded."""
    source: str
    """What the image was called: a path, or the file name of an upload."""
    familiarity: float
    """Like novelty and hybrid infinite where the score is no number, which fails the part."""
    novelty: float
    hybrid: float
    p_value: float
    decision: str
    nearest_image: str
    nearest_sha256: str
    latency_ms: float
    """From request to decision; of a batch command, its mean time per image."""
    shadow: bool
    """True when a challenger judged silently and nobody was told."""
    brightness: float | None = None
    """Of the image, as in the manifest; None, like contrast and sharpness, in logs of before the monitor."""
    contrast: float | None = None
    sharpness: float | None = None


def decide_now(
    detection: "Detection",
    grey: "GreyStatistics",
    *,
    line: str,
    version: int,
    detector_digest: str,
    image_sha256: str,
    source: str,
    latency_ms: float,
    shadow: bool = False,
) -> LoggedDecision:
    """The record of a decision taken now, under a new prediction id; nothing is written."""
    return LoggedDecision(
        prediction_id=str(uuid4()),
        at=datetime.now(UTC).isoformat(timespec="microseconds"),
        line=line,
        version=version,
        detector_digest=detector_digest,
        image_sha256=image_sha256,
        source=_storable(source),
        familiarity=_number(detection.familiarity),
        novelty=_number(detection.novelty),
        hybrid=_number(detection.hybrid),
        p_value=detection.p_value,
        decision=detection.decision,
        nearest_image=detection.nearest.image,
        nearest_sha256=detection.nearest.sha256,
        latency_ms=latency_ms,
        shadow=shadow,
        brightness=grey.brightness,
        contrast=grey.contrast,
        sharpness=grey.sharpness,
    )


def log_decisions(workspace: Workspace, decisions: Sequence[LoggedDecision]) -> None:
    """Write all of them, or none, in one transaction; they are on disk when this returns.

    Raises:
        ServiceError: the database cannot be reached or stays locked.
    """
    if not decisions:
        return
    with writing(locate(workspace)) as connection:
        connection.execute(insert(DECISIONS), [asdict(each) for each in decisions])


def find_decision(workspace: Workspace, prediction_id: str) -> LoggedDecision | None:
    """The decision of that id, or None.

    Raises:
        ServiceError: the database cannot be reached.
    """
    found = _select(workspace, DECISIONS.c.prediction_id == prediction_id)
    return found[0] if found else None


def decisions_on(workspace: Workspace, image_sha256: str) -> list[LoggedDecision]:
    """Every decision on an image, by the digest of its file, oldest first.

    Raises:
        ServiceError: the database cannot be reached.
    """
    return _select(workspace, DECISIONS.c.image_sha256 == image_sha256)


def last_decisions(workspace: Workspace, line: str, since: str, until: str) -> dict[int, str]:
    """By version, when it last judged a part of ``line`` between two times, the shadow left out.

    Args:
        since: UTC, ISO 8601 with microseconds.
        until: the same.
    Raises:
        ServiceError: the database cannot be reached.
    """
    told = DECISIONS.c
    query = (
        select(told.version, func.max(told.at).label("last"))
        .where(told.line == line, told.shadow.is_(False), told.at.between(since, until))
        .group_by(told.version)
        .order_by(told.version)
    )
    with reading(locate(workspace), DECISIONS) as connection:
        return {row.version: row.last for row in connection.execute(query)} if connection is not None else {}


def decisions_of(
    workspace: Workspace, line: str, by: Literal["prediction_id", "image_sha256"], keys: Iterable[str]
) -> dict[str, LoggedDecision]:
    """For each key the decision of ``line``; of several on one image the newest that somebody was told.

    Raises:
        ServiceError: the database cannot be reached.
    """
    wanted = list(dict.fromkeys(keys))
    found: dict[str, LoggedDecision] = {}
    for start in range(0, len(wanted), _ASKED_AT_ONCE):
        condition = DECISIONS.c[by].in_(wanted[start : start + _ASKED_AT_ONCE]) & (DECISIONS.c.line == line)
        # The oldest first, and those of a challenger before all: the last one stays.
        rows = sorted(_select(workspace, condition), key=lambda each: not each.shadow)
        found |= {getattr(each, by): each for each in rows}
    return found


def _select(workspace: Workspace, condition: ColumnElement[bool]) -> list[LoggedDecision]:
    with reading(locate(workspace), DECISIONS) as connection:
        if connection is None:
            return []
        query = select(*present_columns(connection, DECISIONS)).where(condition).order_by(DECISIONS.c.at)
        return [LoggedDecision(**row._mapping) for row in connection.execute(query)]


def _number(score: float) -> float:
    """SQLite keeps no NaN: it becomes NULL, which would refuse the decision and all others of its batch."""
    return math.inf if math.isnan(score) else score


def _storable(source: str) -> str:
    """A name that every database takes: file names may hold control characters, or be no text."""
    text = source.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(each if each.isprintable() else "?" for each in text)[:_SOURCE_CHARACTERS]
