"""What reviewers read: where versions stand, and the decision log, filtered, with the verdicts on it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import ColumnElement, and_, func, inspect, or_, select

from novad.config import Workspace
from novad.tracking.database import DECISIONS, VERDICTS, present_columns, reading
from novad.tracking.decisions import LoggedDecision, find_decision
from novad.tracking.events import Event
from novad.tracking.store import locate
from novad.tracking.verdicts import OperatorVerdict, verdicts_on

__all__ = [
    "ReviewedDecision",
    "VersionStanding",
    "challenger",
    "decision_counts",
    "latest_decisions",
    "version_standing",
]

VersionStanding = Literal["champion", "former champion", "rejected", "candidate"]


@dataclass(frozen=True)
class ReviewedDecision:
    """A decision and what people said about it."""

    decision: LoggedDecision
    verdict: OperatorVerdict | None
    """The newest one; None when nobody said anything."""


def latest_decisions(
    workspace: Workspace,
    *,
    line: str | None = None,
    decision: str | None = None,
    verdict: Literal["none", "good", "defect"] | None = None,
    before: str | None = None,
    limit: int = 50,
) -> list[ReviewedDecision]:
    """The newest decisions that a filter lets through, without those that were made in the shadow.

    Args:
        line: of this line only.
        decision: `PASS`, `REVIEW` or `FAIL` only.
        verdict: whose newest verdict is this; `none` for those without one.
        before: prediction id after which to go on; an unknown one gives nothing.
        limit: most of them.
    Raises:
        ServiceError: the database cannot be reached.
    """
    conditions: list[ColumnElement[bool]] = [DECISIONS.c.shadow.is_(False)]
    if line is not None:
        conditions.append(DECISIONS.c.line == line)
    if decision is not None:
        conditions.append(DECISIONS.c.decision == decision)
    if before is not None:
        last = find_decision(workspace, before)
        if last is None:
            return []
        conditions.append(_older(last))
    with reading(locate(workspace), DECISIONS) as connection:
        if connection is None:
            return []
        if verdict is not None and inspect(connection).has_table(VERDICTS.name):
            conditions.append(_newest_verdict_is(verdict))
        elif verdict in {"good", "defect"}:
            return []
        query = (
            select(*present_columns(connection, DECISIONS))
            .where(*conditions)
            .order_by(DECISIONS.c.at.desc(), DECISIONS.c.prediction_id.desc())
            .limit(limit)
        )
        found = [LoggedDecision(**row._mapping) for row in connection.execute(query)]
    verdicts = verdicts_on(workspace, [each.prediction_id for each in found])
    return [ReviewedDecision(each, verdicts.get(each.prediction_id, [None])[-1]) for each in found]


def decision_counts(workspace: Workspace, since: datetime) -> dict[str, dict[str, int]]:
    """How often each line was given each decision since a time, without the shadow.

    Raises:
        ServiceError: the database cannot be reached.
    """
    query = (
        select(DECISIONS.c.line, DECISIONS.c.decision, func.count())
        .where(DECISIONS.c.shadow.is_(False))
        .where(DECISIONS.c.at >= since.astimezone(UTC).isoformat(timespec="microseconds"))
        .group_by(DECISIONS.c.line, DECISIONS.c.decision)
    )
    with reading(locate(workspace), DECISIONS) as connection:
        rows = connection.execute(query).all() if connection is not None else []
    counts: dict[str, dict[str, int]] = {}
    for line, decision, number in rows:
        counts.setdefault(line, {})[decision] = number
    return counts


def version_standing(version: int, chain: Sequence[Event], champion: int | None) -> VersionStanding:
    """What the last decision on a version of a line made of it."""
    if version == champion:
        return "champion"
    kinds = [event.kind for event in chain if event.version == version and event.kind != "refusal"]
    if not kinds:
        return "candidate"
    return "rejected" if kinds[-1] == "rejection" else "former champion"


def challenger(versions: Iterable[int], chain: Sequence[Event], champion: int | None) -> int | None:
    """The newest version after the champion that nobody decided on; None when none waits."""
    waiting = (
        version
        for version in versions
        if version > (champion or 0) and version_standing(version, chain, champion) == "candidate"
    )
    return max(waiting, default=None)


def _older(last: LoggedDecision) -> ColumnElement[bool]:
    same_moment = and_(DECISIONS.c.at == last.at, DECISIONS.c.prediction_id < last.prediction_id)
    return or_(DECISIONS.c.at < last.at, same_moment)


def _newest_verdict_is(verdict: str) -> ColumnElement[bool]:
    newest = (
        select(VERDICTS.c.verdict)
        .where(VERDICTS.c.prediction_id == DECISIONS.c.prediction_id)
        .order_by(VERDICTS.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    return newest.is_(None) if verdict == "none" else newest == verdict
