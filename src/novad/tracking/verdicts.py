"""What people say about logged decisions: good or defect, of which type, by whom and why."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import insert, select

from novad.config import Workspace
from novad.errors import ConfigError
from novad.tracking.database import VERDICTS, reading, writing
from novad.tracking.decisions import LoggedDecision
from novad.tracking.proposal import require_signature
from novad.tracking.store import locate

__all__ = ["Finding", "OperatorVerdict", "give_verdict", "verdicts_on"]

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
    require_signature(actor, reason)
    if verdict == "good" and defect_type is not None:
        raise ConfigError("a good part has no defect type")
    told = OperatorVerdict(
        prediction_id=decision.prediction_id,
        image_sha256=decision.image_sha256,
        verdict=verdict,
        defect_type=defect_type,
        actor=actor,
        reason=reason,
        at=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    with writing(locate(workspace)) as connection:
        connection.execute(insert(VERDICTS).values(**asdict(told)))
    return told


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
        fields = {name: value for name, value in row._mapping.items() if name != "number"}
        found.setdefault(row.prediction_id, []).append(OperatorVerdict(**fields))
    return found
