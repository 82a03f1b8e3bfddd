"""The event log: what happened to a line's models and data, by whom and why, as a hash chain in SQL."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import NoneType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, delete, func, insert, inspect, literal, select
from sqlalchemy.exc import IntegrityError as DuplicateKey

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError, RefusedError, ServiceError
from novad.tracking.database import EVENTS, HEADS, SIGNATURES, reading, writing
from novad.tracking.signing import (
    SIGNING_KEY,
    sign,
    signature_problems,
    signatures_of,
    signing_key,
    verifying_key,
)
from novad.tracking.store import locate

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = [
    "KEY_ADOPTED",
    "MAKES_CHAMPION",
    "Event",
    "append",
    "champion_event",
    "champion_of",
    "champion_stack",
    "events",
    "examine",
    "head",
    "heads",
    "intact_events",
    "reign",
    "threshold_event",
    "verify",
]

_ATTEMPTS = 50
_FIRST = "0" * 64
_TEXTS = ("line", "kind", "actor", "reason", "at", "detail", "previous", "digest")
MAKES_CHAMPION = ("promotion", "rollback")
KEY_ADOPTED = "key-adopted"


@dataclass(frozen=True)
class Event:
    """One entry; ``digest`` covers every other field, among them the digest of the entry before it."""

    line: str
    sequence: int
    """1, 2, 3, ... within the line."""
    kind: str
    """`promotion`, `rollback`, `threshold`, `rejection`, `refusal`, `data-accepted`, `key-adopted`; a later
    kind changes no table."""
    version: int | None
    actor: str
    reason: str
    at: str
    """UTC, ISO 8601 with microseconds; never before that of the event before it."""
    detail: Mapping[str, Any]
    """Whatever the kind needs to be understood later, JSON."""
    previous: str
    digest: str


def append(
    workspace: Workspace,
    line: str,
    kind: str,
    *,
    actor: str,
    reason: str,
    version: int | None = None,
    detail: Mapping[str, Any] | None = None,
    expected: int | None = None,
) -> Event:
    """Add one event to the chain of ``line``.

    Args:
        expected: sequence of the newest event that the caller based its decision on; None appends after
            whatever is there. Refusals since then change nothing and do not count: else the loser of one
            race would make the next one lose, too.
    Raises:
        RefusedError: somebody else decided since ``expected``.
        IntegrityError: the newest event does not agree with its own digest or the recorded head, or the key
            at hand did not sign it; only an event of kind `key-adopted` may follow unsigned ones with a key.
        ConfigError: the line's events are signed and no key is at hand, or the key cannot be used.
        ServiceError: the database cannot be reached or stays locked.
    """
    store, key = locate(workspace), signing_key()
    for _ in range(_ATTEMPTS):
        event = None
        try:
            with writing(store) as connection:
                newest = _newest(connection, line)
                sequence = newest.sequence if newest else 0
                now = datetime.now(UTC).isoformat(timespec="microseconds")
                if expected is not None and _decided_since(connection, line, expected, sequence):
                    raise RefusedError(
                        f"{line}: somebody else changed this line meanwhile (event {sequence}, expected "
                        f"{expected}); look at `novad history {line}` and decide again"
                    )
                event = _sealed(
                    Event(
                        line=line,
                        sequence=sequence + 1,
                        kind=kind,
                        version=version,
                        actor=actor,
                        reason=reason,
                        # A clock may be set back, and what is asked by time is answered by order.
                        at=max(now, newest.at) if newest else now,
                        detail=json.loads(_canonical(dict(detail or {}))),
                        previous=newest.digest if newest else _FIRST,
                        digest="",
                    )
                )
                if newest is not None:
                    _require_signed(connection, newest, kind, key)
                connection.execute(insert(EVENTS).values(**_row(event)))
                if key is not None:
                    signed = {"line": line, "sequence": event.sequence, "signature": sign(key, event.digest)}
                    connection.execute(insert(SIGNATURES).values(**signed))
                connection.execute(delete(HEADS).where(HEADS.c.line == line))
                connection.execute(
                    insert(HEADS).values(line=line, sequence=event.sequence, digest=event.digest)
                )
            return event
        except DuplicateKey:
            continue  # Another writer took this sequence number: read the new head and try again.
        except ServiceError as error:
            # What was lost may be the answer to the commit alone.
            if event is not None and _is_written(workspace, event, error):
                return event
            raise
    raise ServiceError(f"{line}: the event log is too busy; nothing was written")


def events(workspace: Workspace, line: str | None = None) -> list[Event]:
    """Every event in order, of one line or of all."""
    with reading(locate(workspace), EVENTS) as connection:
        return _read(connection, line) if connection is not None else []


def intact_events(workspace: Workspace, line: str | None = None) -> list[Event]:
    """Every event, as :func:`events`, from one look at a log that was found to be intact.

    Raises:
        IntegrityError: names every event that was edited, moved or removed.
    """
    chain, problems = examine(workspace, line)
    if problems:
        raise IntegrityError(f"the event log was changed behind novad's back: {'; '.join(problems)}")
    return chain


def head(workspace: Workspace, line: str) -> int:
    """Sequence number of the newest event of ``line``, 0 before the first: what a decision is based on."""
    with reading(locate(workspace), EVENTS) as connection:
        newest = _newest(connection, line) if connection is not None else None
    return newest.sequence if newest else 0


def heads(workspace: Workspace) -> dict[str, int]:
    """Sequence number of the newest event of every line: one look that tells whether anything happened."""
    with reading(locate(workspace), HEADS) as connection:
        found = _heads(connection, None) if connection is not None else {}
    return {line: sequence for line, (sequence, _) in found.items()}


def champion_event(workspace: Workspace, line: str) -> Event | None:
    """The event that made the present champion, or None when the line never had one."""
    return champion_of(events(workspace, line))


def champion_of(chain: Iterable[Event]) -> Event | None:
    """The event that made the champion that stands after ``chain``, or None."""
    stack = champion_stack(chain)
    return stack[-1] if stack else None


def champion_stack(chain: Iterable[Event]) -> list[Event]:
    """The champions that stand after ``chain``: the present one last, below it those to roll back to.

    A promotion goes on top. A rollback takes away everything above the version that it names, and stands in
    its place; one to a version that was taken away before goes on top.
    """
    stack: list[Event] = []
    for event in chain:
        if event.kind not in MAKES_CHAMPION:
            continue
        versions = [each.version for each in stack]
        if event.kind == "rollback" and event.version in versions:
            del stack[versions.index(event.version) :]
        elif versions and versions[-1] == event.version:
            stack.pop()
        stack.append(event)
    return stack


def reign(chain: Sequence[Event], version: int | None) -> list[Event]:
    """The events of ``chain`` until another champion followed ``version`` for the last time.

    A service goes on with a version until the next one is loaded, and by its word if that never succeeds.

    Returns:
        A beginning of ``chain``, after which ``version`` is champion; empty when it never was.
    """
    crowned = [at for at, event in enumerate(chain) if event.kind in MAKES_CHAMPION]
    own = [at for at in crowned if chain[at].version == version]
    if not own:
        return []
    return list(chain[: next((at for at in crowned if at > own[-1]), None)])


def threshold_event(chain: Iterable[Event]) -> Event | None:
    """The change of threshold in force after ``chain``: the last one since the present champion came in."""
    newest = None
    for event in chain:
        if event.kind in MAKES_CHAMPION:
            newest = None
        elif event.kind == "threshold":
            newest = event
    return newest


def verify(workspace: Workspace, line: str | None = None) -> list[str]:
    """Check every event against its digest, its predecessor and the recorded heads.

    Returns:
        One sentence per broken event or line; empty when the log is intact.
    """
    return examine(workspace, line)[1]


def examine(workspace: Workspace, line: str | None = None) -> tuple[list[Event], list[str]]:
    """The events, as :func:`events`, and what is wrong with them, as :func:`verify`, from one look."""
    key = verifying_key()
    # Either table may have been removed behind our back: what the other one tells gives it away.
    with reading(locate(workspace), EVENTS, HEADS) as connection:
        if connection is None:
            return [], []
        # One transaction for both: between two, an event of somebody else would look like a forgery.
        there = inspect(connection).has_table
        found = _read(connection, line) if there(EVENTS.name) else []
        heads = _heads(connection, line) if there(HEADS.name) else {}
        signatures = signatures_of(connection, line) if key is not None else {}
    problems = []
    for name in sorted({event.line for event in found} | set(heads)):
        chain = [event for event in found if event.line == name]
        problems += _chain_problems(name, chain)
        if key is not None:
            digests = [(event.sequence, event.digest) for event in chain]
            problems += signature_problems(name, digests, signatures.get(name, {}), key)
        newest = (chain[-1].sequence, chain[-1].digest) if chain else (0, _FIRST)
        if heads.get(name) != newest:
            recorded = heads.get(name, (0, ""))[0]
            problems.append(
                f"{name}: the log ends with event {newest[0]}, the recorded head is event {recorded}: "
                "its end was removed or replaced"
            )
    return found, problems


def _chain_problems(line: str, chain: list[Event]) -> list[str]:
    problems = []
    previous = _FIRST
    for position, event in enumerate(chain, start=1):
        if event.sequence != position:
            problems.append(f"{line}: event {position} is missing (found event {event.sequence} instead)")
            break
        if event.digest != _digest(event):
            problems.append(f"{line}: event {position} was edited: its content does not match its digest")
        if event.previous != previous:
            problems.append(f"{line}: event {position} does not follow event {position - 1}")
        previous = event.digest
    return problems


def _newest(connection: Connection, line: str) -> Event | None:
    # One statement for both: between two, PostgreSQL shows a writer what others have committed meanwhile.
    asked = select(literal(line).label("line")).subquery()
    number = select(func.max(EVENTS.c.sequence)).where(EVENTS.c.line == line).scalar_subquery()
    row = connection.execute(
        select(HEADS.c.sequence, HEADS.c.digest, EVENTS).select_from(
            asked.outerjoin(HEADS, HEADS.c.line == asked.c.line).outerjoin(
                EVENTS, and_(EVENTS.c.line == asked.c.line, EVENTS.c.sequence == number)
            )
        )
    ).one()
    recorded, told = tuple(row[:2]), dict(zip(EVENTS.c.keys(), row[2:], strict=True))
    newest = _event(told) if told["line"] is not None else None
    present = (newest.sequence, newest.digest) if newest else (None, None)
    if present != recorded or (newest is not None and newest.digest != _digest(newest)):
        raise IntegrityError(f"{line}: the event log was changed behind novad's back; nothing is added to it")
    return newest


def _is_written(workspace: Workspace, event: Event, lost: ServiceError) -> bool:
    try:
        return event in events(workspace, event.line)
    except ServiceError:
        raise ServiceError(
            f"{event.line}: {lost}; whether the {event.kind} was recorded is not known: `novad history "
            f"{event.line}` tells it once the database is back"
        ) from lost


def _require_signed(
    connection: Connection, newest: Event, kind: str, key: "Ed25519PrivateKey | None"
) -> None:
    """Refuse an event that breaks the row of signatures, or signs for others that nobody looked at."""
    signatures = signatures_of(connection, newest.line).get(newest.line, {})
    if key is None:
        if newest.sequence in signatures:
            raise ConfigError(f"{newest.line}: its events are signed; {SIGNING_KEY} must name the key")
    elif signatures or kind != KEY_ADOPTED:
        digests = [(newest.sequence, newest.digest)]
        problems = signature_problems(newest.line, digests, signatures, key.public_key())
        if problems:
            raise IntegrityError(f"{problems[0]}; nothing is added to it")


def _decided_since(connection: Connection, line: str, expected: int, newest: int) -> bool:
    decided = select(func.max(EVENTS.c.sequence)).where(EVENTS.c.line == line, EVENTS.c.kind != "refusal")
    return newest < expected or (connection.execute(decided).scalar() or 0) > expected


def _read(connection: Connection, line: str | None) -> list[Event]:
    query = select(EVENTS).order_by(EVENTS.c.line, EVENTS.c.sequence)
    if line is not None:
        query = query.where(EVENTS.c.line == line)
    return [_event(row._mapping) for row in connection.execute(query)]


def _heads(connection: Connection, line: str | None) -> dict[str, tuple[int, str]]:
    rows = connection.execute(select(HEADS)).all()
    return {str(row.line): (row.sequence, row.digest) for row in rows if line in (None, row.line)}


def _sealed(event: Event) -> Event:
    return Event(**{**asdict(event), "digest": _digest(event)})


def _digest(event: Event) -> str:
    fields = asdict(event)
    del fields["digest"]
    return hashlib.sha256(_canonical(fields).encode("ascii")).hexdigest()


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def _row(event: Event) -> dict[str, Any]:
    return {**asdict(event), "detail": _canonical(event.detail)}


def _event(row: Mapping[Any, Any]) -> Event:
    if _is_typed(row):
        with suppress(ValueError, RecursionError):
            event = Event(**{**row, "detail": json.loads(row["detail"])})
            _digest(event)  # Numbers that JSON does not know, or lists in lists without end.
            if isinstance(event.detail, dict):
                return event
    return _unreadable(row)


def _is_typed(row: Mapping[Any, Any]) -> bool:
    """SQLite keeps anything in any column."""
    texts = all(isinstance(row[name], str) for name in _TEXTS)
    return texts and isinstance(row["sequence"], int) and isinstance(row["version"], (int, NoneType))


def _unreadable(row: Mapping[Any, Any]) -> Event:
    """A row that nobody can have appended, made legible: its digest will not match, and verify says so."""
    told: dict[str, Any] = {
        name: row[name] if isinstance(row[name], str) else ascii(row[name]) for name in _TEXTS
    }
    told["detail"] = {"unreadable": told["detail"]}
    told["sequence"] = row["sequence"] if isinstance(row["sequence"], int) else 0
    told["version"] = row["version"] if isinstance(row["version"], int) else None
    return Event(**told)
