"""Which causes of a retraining a training has answered, so that none starts one at every look."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import delete, insert, select

from novad.config import Workspace
from novad.tracking.database import ANSWERS, reading, writing
from novad.tracking.store import locate

__all__ = ["answered_causes", "record_answers"]


def answered_causes(workspace: Workspace, line: str) -> set[str]:
    """Keys of all causes that a training of ``line`` has answered.

    Raises:
        ServiceError: the database cannot be reached.
    """
    with reading(locate(workspace), ANSWERS) as connection:
        if connection is None:
            return set()
        return set(connection.execute(select(ANSWERS.c.cause).where(ANSWERS.c.line == line)).scalars())


def record_answers(workspace: Workspace, line: str, causes: Sequence[str]) -> None:
    """Remember that a training answered causes, by their keys; what is recorded already is so once more.

    Raises:
        ServiceError: the database cannot be reached.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with writing(locate(workspace)) as connection:
        connection.execute(delete(ANSWERS).where(ANSWERS.c.line == line, ANSWERS.c.cause.in_(causes)))
        connection.execute(insert(ANSWERS), [{"line": line, "cause": each, "at": now} for each in causes])
