"""What people say about logged decisions: good or defect, of which type, by whom and why."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import Row, insert, select

from novad.config import Workspace
from novad.errors import ConfigError
from novad.tracking.database import DECISIONS, VERDICTS, reading, writing
from novad.tracking.decisions import LoggedDecision
from novad.tracking.proposal import signature
from novad.tracking.store import locate

__all__ = [
    "Finding",
    "OperatorVerdict",
    "give_verdict",
    "line_verdicts",
    "log_verdicts",
    "verdict_now",
    "verdicts_on",
    "verdicts_on_image",
]

Finding = Literal["good", "defect"]


@dataclass(frozen=True)
class OperatorVerdict:
    """A person's word on one decision."""

    prediction_id: str
    image_sha256: str
    verdict: Finding
    defect_type: str | None
    """None for a good part, and where nobody said."""
    actor: str
    reason: str
    at: str
    """UTC, ISO 8601 with microseconds."""


def give_verdict(
    workspace: Workspace,
    decision: LoggedDecision,
    verdict: Finding,
    actor: str,
    reason: str,
    defect_type: str | None = None,
) -> OperatorVerdict:
    """Add a verdict on ``decision``; earlier ones stay on record, the newest counts.

    Raises:
        ConfigError: no name, no reason, or a good part with a defect type.
        ServiceError: the database cannot be reached or stays locked.
    """
    told = verdict_now(decision, verdict, actor, reason, defect_type)
    log_verdicts(workspace, [told])
    return told


def verdict_now(
    decision: LoggedDecision, verdict: Finding, actor: str, reason: str, defect_type: str | None = None
) -> OperatorVerdict:
    """A verdict that is given now; nothing is written.

    Raises:
        ConfigError: no name, no reason, or a good part with a defect type.
    """
    actor, reason = signature(actor, reason)
    if verdict == "good" and defect_type is not None:
        raise ConfigError("a good part has no defect type")
    return OperatorVerdict(
        prediction_id=decision.prediction_id,
        image_sha256=decision.image_sha256,
        verdict=verdict,
        defect_type=defect_type,
        actor=actor,
        reason=reason,
        at=datetime.now(UTC).isoformat(timespec="microseconds"),
    )


def log_verdicts(workspace: Workspace, verdicts: Sequence[OperatorVerdict]) -> None:
    """Add all of them, or none, in one transaction.

    Raises:
        ServiceError: the database cannot be reached or stays locked.
    """
    if not verdicts:
        return
    with writing(locate(workspace)) as connection:
        connection.execute(insert(VERDICTS), [asdict(each) for each in verdicts])


def verdicts_on(workspace: Workspace, prediction_ids: Collection[str]) -> dict[str, list[OperatorVerdict]]:
    """Verdicts by prediction, in the order given, so that the last one counts; none, no entry.

    Raises:
        ServiceError: the database cannot be reached.
    """
    query = select(VERDICTS).where(VERDICTS.c.prediction_id.in_(prediction_ids)).order_by(VERDICTS.c.number)
    with reading(locate(workspace), VERDICTS) as connection:
        rows = connection.execute(query).all() if connection is not None else []
    found: dict[str, list[OperatorVerdict]] = {}
    for row in rows:
        found.setdefault(row.prediction_id, []).append(_verdict(row))
    return found


def verdicts_on_image(workspace: Workspace, image_sha256: str) -> list[OperatorVerdict]:
    """Every verdict on an image, by the digest of its file, in the order given.

    Raises:
        ServiceError: the database cannot be reached.
    """
    query = select(VERDICTS).where(VERDICTS.c.image_sha256 == image_sha256).order_by(VERDICTS.c.number)
    with reading(locate(workspace), VERDICTS) as connection:
        rows = connection.execute(query).all() if connection is not None else []
    return [_verdict(row) for row in rows]


def line_verdicts(workspace: Workspace, line: str) -> list[tuple[LoggedDecision, OperatorVerdict]]:
    """Every decision of ``line`` on which there is a verdict, with the newest one, the oldest of those first.

    Raises:
        ServiceError: the database cannot be reached.
    """
    on_line = VERDICTS.c.prediction_id == DECISIONS.c.prediction_id, DECISIONS.c.line == line
    with reading(locate(workspace), VERDICTS) as connection:
        if connection is None:
            return []
        decisions = {
            row.prediction_id: LoggedDecision(**row._mapping)
            for row in connection.execute(select(DECISIONS).where(*on_line).distinct())
        }
        given = connection.execute(select(VERDICTS).where(*on_line).order_by(VERDICTS.c.number)).all()
    newest: dict[str, OperatorVerdict] = {}
    for row in given:
        newest.pop(row.prediction_id, None)
        newest[row.prediction_id] = _verdict(row)
    return [(decisions[prediction_id], verdict) for prediction_id, verdict in newest.items()]


def _verdict(row: Row[tuple[object, ...]]) -> OperatorVerdict:
    return OperatorVerdict(**{name: value for name, value in row._mapping.items() if name != "number"})
