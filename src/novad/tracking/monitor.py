"""Monitoring a line: its logged decisions against what its champion was calibrated on."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from novad.config import Workspace
from novad.evaluation import rates
from novad.monitoring.drift import Drift, Stream, watch
from novad.tracking.database import DECISIONS, present_columns, reading
from novad.tracking.decisions import LoggedDecision
from novad.tracking.reference import FIGURES, Reference, champion_reference
from novad.tracking.store import locate

__all__ = ["FALSE_ALARM_RATE", "WINDOW", "Monitored", "Rate", "StreamReport", "drift_of", "monitor"]

WINDOW = 10_000
FALSE_ALARM_RATE = 0.01
_DECISIONS = ("PASS", "REVIEW", "FAIL")


@dataclass(frozen=True)
class Rate:
    """How often a decision was given."""

    count: int
    share: float | None
    interval: tuple[float, float] | None
    """Exact 95 %, after Clopper and Pearson (1934); None without a decision."""


@dataclass(frozen=True)
class StreamReport:
    """What one figure shows; ``since`` is the time of the first decision that differs."""

    name: str
    parts: int
    evidence: float
    drifted: bool
    direction: str | None
    since: str | None
    usual: float | None
    lately: float | None


@dataclass(frozen=True)
class Monitored:
    """Verdict on a line, recomputed from its log."""

    line: str
    version: int
    """The champion, or the one asked for; only its own decisions count."""
    verdict: str
    """`quiet` or `alarm`."""
    drifted: tuple[str, ...]
    """Figures that an alarm is about."""
    since: str | None
    """When the decision was made from which on all of them differ, most likely."""
    evidence: float
    """Alarm from 1 / false_alarm_rate on."""
    false_alarm_rate: float
    parts: int
    first: str | None
    last: str | None
    """Times of the first and last decision that count."""
    rates: dict[str, Rate]
    left_out: dict[str, int]
    """`own_data`: images of the line's data set; `repeated`: judged before; `unusable`: damaged rows."""
    streams: tuple[StreamReport, ...]

    @property
    def alarmed(self) -> bool:
        """Whether something changed."""
        return self.verdict == "alarm"


def monitor(
    workspace: Workspace,
    line: str,
    since: datetime | None = None,
    window: int = WINDOW,
    version: int | None = None,
) -> Monitored:
    """Judge the newest decisions of the champion, without those that were made in the shadow.

    Args:
        since: leave out what was decided before.
        window: most decisions that are looked at.
        version: a former champion that still judges, instead of the present one.
    Raises:
        ConfigError: the line has no champion, or ``version`` never was it.
        IntegrityError: a record of the champion was changed.
        ServiceError: the store cannot be reached.
    """
    reference = champion_reference(workspace, line, version)
    rows = _newest(workspace, line, reference.version, since, window)
    used, left_out = _usable(rows, reference)
    drift = drift_of(used, reference, window)
    streams = tuple(
        StreamReport(**{**asdict(each), "since": _at(used, each.since)}) for each in drift.streams
    )
    return Monitored(
        line=line,
        version=reference.version,
        verdict="alarm" if drift.alarm else "quiet",
        drifted=tuple(each.name for each in streams if drift.alarm and each.drifted),
        since=_at(used, drift.since),
        evidence=drift.evidence,
        false_alarm_rate=FALSE_ALARM_RATE,
        parts=len(used),
        first=_at(used, 0 if used else None),
        last=_at(used, len(used) - 1 if used else None),
        rates=_rates(used),
        left_out=left_out,
        streams=streams,
    )


def drift_of(decisions: Sequence[LoggedDecision], reference: Reference, window: int = WINDOW) -> Drift:
    """Drift of usable decisions, oldest first.

    Figures are watched over parts that pass, against the normals below the threshold that set it: so they are
    alike while good parts are, whatever share of the others is defective.
    """
    hybrid = _column(decisions, "hybrid")
    passes = hybrid <= reference.review
    streams = [
        Stream(name, reference.normals[name], np.where(passes, _column(decisions, name), np.nan))
        for name in FIGURES
    ]
    chance = np.array([_chance(each.prediction_id) for each in decisions], np.float64)
    return watch(streams, (~passes).astype(np.float64), chance, window, FALSE_ALARM_RATE)


def _newest(
    workspace: Workspace, line: str, version: int, since: datetime | None, window: int
) -> list[LoggedDecision]:
    """At most ``window`` decisions, oldest first."""
    told = DECISIONS.c
    conditions = [told.line == line, told.version == version, told.shadow.is_(False)]
    if since is not None:
        conditions.append(told.at >= since.astimezone(UTC).isoformat(timespec="microseconds"))
    with reading(locate(workspace), DECISIONS) as connection:
        if connection is None:
            return []
        query = (
            select(*present_columns(connection, DECISIONS))
            .where(*conditions)
            .order_by(told.at.desc(), told.prediction_id.desc())
            .limit(window)
        )
        found = [LoggedDecision(**row._mapping) for row in connection.execute(query)]
    return found[::-1]


def _usable(
    rows: Sequence[LoggedDecision], reference: Reference
) -> tuple[list[LoggedDecision], dict[str, int]]:
    """Decisions on parts, each image once, and how many of which others there are."""
    used: list[LoggedDecision] = []
    left_out = {"own_data": 0, "repeated": 0, "unusable": 0}
    seen: set[str] = set()
    for row in rows:
        if row.decision not in _DECISIONS or not math.isfinite(_number(row.hybrid)):
            left_out["unusable"] += 1
        elif row.image_sha256 in reference.own:
            left_out["own_data"] += 1
        elif row.image_sha256 in seen:
            left_out["repeated"] += 1
        else:
            seen.add(row.image_sha256)
            used.append(row)
    return used, left_out


def _column(decisions: Sequence[LoggedDecision], name: str) -> NDArray[np.float64]:
    return np.array([_number(getattr(each, name)) for each in decisions], np.float64)


def _number(value: Any) -> float:
    """A figure of the log; NaN where there is none, or what SQLite let pass for one."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def _chance(prediction_id: str) -> float:
    """A uniform number that belongs to a decision: its id is random, and the same at every look."""
    return int.from_bytes(hashlib.sha256(str(prediction_id).encode()).digest()[:6], "big") / 2**48


def _at(decisions: Sequence[LoggedDecision], index: int | None) -> str | None:
    return None if index is None else decisions[index].at


def _rates(decisions: Sequence[LoggedDecision]) -> dict[str, Rate]:
    counts, total = Counter(each.decision for each in decisions), len(decisions)
    if not total:
        return {name: Rate(0, None, None) for name in _DECISIONS}
    shares = {name: rates.Rate(counts[name], total) for name in _DECISIONS}
    return {name: Rate(each.count, each.share, each.ci95) for name, each in shares.items()}
