"""The event log: in order, by whom, and changed by nobody without being noticed."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime, tzinfo
from threading import Thread

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from novad.config import Workspace
from novad.errors import IntegrityError, RefusedError
from novad.tracking.database import EVENTS, HEADS, writing
from novad.tracking.events import _digest, append, champion_event, events, head, heads, reign, verify
from novad.tracking.store import locate

APPEND = """
import sys
from pathlib import Path
from novad.config import Workspace
from novad.tracking.events import append
for number in range(int(sys.argv[3])):
    append(Workspace(Path(sys.argv[1])), "metal", "note", actor=sys.argv[2], reason=f"event {number}")
"""


def _three(workspace: Workspace) -> None:
    for number in range(1, 4):
        append(
            workspace, "metal", "promotion", actor="ann", reason=f"r{number}", version=number, detail={"n": 1}
        )


def test_events_come_back_as_they_were_written(workspace: Workspace) -> None:
    assert events(workspace, "metal") == []
    assert head(workspace, "metal") == 0
    written = append(
        workspace,
        "metal",
        "promotion",
        actor="Änn",
        reason="первый",
        version=3,
        detail={"gates": [1.5, None]},
    )
    assert events(workspace, "metal") == [written]
    assert (written.sequence, written.version, written.detail) == (1, 3, {"gates": [1.5, None]})
    assert head(workspace, "metal") == 1
    assert verify(workspace) == []


def test_time_goes_on_in_a_chain_though_the_clock_goes_back(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Backwards(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime(2000, 1, 1, tzinfo=tz)

    first = append(workspace, "metal", "note", actor="a", reason="r")
    monkeypatch.setattr("novad.tracking.events.datetime", Backwards)
    assert append(workspace, "metal", "note", actor="a", reason="r").at == first.at
    assert append(workspace, "fabric", "note", actor="a", reason="r").at < first.at
    assert verify(workspace) == []


def test_every_line_has_its_own_chain(workspace: Workspace) -> None:
    append(workspace, "metal", "note", actor="a", reason="r")
    other = append(workspace, "fabric", "note", actor="a", reason="r")
    assert other.sequence == 1
    assert [event.line for event in events(workspace)] == ["fabric", "metal"]


def test_the_champion_is_what_the_last_promotion_named(workspace: Workspace) -> None:
    assert champion_event(workspace, "metal") is None
    _three(workspace)
    append(workspace, "metal", "refusal", actor="bob", reason="no", version=9)
    found = champion_event(workspace, "metal")
    assert found is not None
    assert found.version == 3


def test_a_reign_goes_on_until_another_champion_follows_for_the_last_time(workspace: Workspace) -> None:
    told = [("promotion", 1), ("threshold", 1), ("promotion", 2), ("refusal", 1), ("rollback", 1)]
    for kind, version in [*told, ("promotion", 3), ("rejection", 1)]:
        append(workspace, "metal", kind, actor="ann", reason="r", version=version)
    chain = events(workspace, "metal")
    assert [len(reign(chain, version)) for version in (1, 2, 3, 4, None)] == [5, 4, 7, 0, 0]


def test_a_log_that_grows_while_it_is_checked_is_not_called_forged(workspace: Workspace) -> None:
    def write() -> None:
        for number in range(40):
            append(workspace, "metal", "note", actor="a", reason=f"event {number}")

    append(workspace, "metal", "note", actor="a", reason="first")
    writer = Thread(target=write)
    writer.start()
    problems = []
    while writer.is_alive():
        problems += verify(workspace)
    assert problems == []
    assert head(workspace, "metal") == 41


def test_a_decision_based_on_an_old_state_is_refused(workspace: Workspace) -> None:
    base = head(workspace, "metal")
    append(workspace, "metal", "promotion", actor="ann", reason="first", version=1, expected=base)
    with pytest.raises(RefusedError, match="somebody else changed this line"):
        append(workspace, "metal", "promotion", actor="bob", reason="second", version=2, expected=base)
    assert [event.actor for event in events(workspace, "metal")] == ["ann"]


def _edit(**values: object) -> Callable[[Connection], object]:
    statement = update(EVENTS).where(EVENTS.c.line == "metal", EVENTS.c.sequence == 2).values(**values)
    return lambda connection: connection.execute(statement)


def _swap(connection: Connection) -> None:
    for old, new in ((1, 99), (2, 1), (99, 2)):
        connection.execute(update(EVENTS).where(EVENTS.c.sequence == old).values(sequence=new))


def _remove(*numbers: int) -> Callable[[Connection], object]:
    return lambda connection: connection.execute(delete(EVENTS).where(EVENTS.c.sequence.in_(numbers)))


def _duplicate(connection: Connection) -> None:
    row = connection.execute(select(EVENTS).where(EVENTS.c.sequence == 3)).one()._asdict()
    connection.execute(insert(EVENTS).values(**{**row, "sequence": 4}))


@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(_edit(kind="note"), id="kind"),
        pytest.param(_edit(version=7), id="version"),
        pytest.param(_edit(actor="mallory"), id="actor"),
        pytest.param(_edit(reason="other"), id="reason"),
        pytest.param(_edit(at="2020-01-01T00:00:00.000000+00:00"), id="time"),
        pytest.param(_edit(detail='{"n":2}'), id="detail"),
        pytest.param(_edit(detail="{"), id="unreadable-detail"),
        pytest.param(_edit(detail="[1]"), id="detail-of-another-type"),
        pytest.param(_edit(previous="f" * 64), id="previous"),
        pytest.param(_edit(digest="f" * 64), id="digest"),
        pytest.param(_edit(line="fabric"), id="line"),
        pytest.param(_swap, id="order"),
        pytest.param(_remove(1), id="first-removed"),
        pytest.param(_remove(2), id="middle-removed"),
        pytest.param(_remove(3), id="last-removed"),
        pytest.param(_remove(1, 2, 3), id="all-removed"),
        pytest.param(_duplicate, id="copied"),
        pytest.param(lambda connection: connection.execute(delete(HEADS)), id="head-removed"),
        pytest.param(EVENTS.drop, id="all-dropped"),
        pytest.param(HEADS.drop, id="heads-dropped"),
    ],
)
def test_every_change_behind_our_back_is_noticed(
    workspace: Workspace, tamper: Callable[[Connection], object]
) -> None:
    _three(workspace)
    assert verify(workspace) == []
    with writing(locate(workspace)) as connection:
        tamper(connection)
    assert any("metal" in problem for problem in verify(workspace))


def _raw(assignment: str) -> Callable[[Connection], object]:
    statement = f"UPDATE novad_events SET {assignment} WHERE line = 'metal' AND sequence = 2"  # noqa: S608
    return lambda connection: connection.exec_driver_sql(statement)


GARBAGE = {
    "bytes": _raw("reason = x'c3'"),
    "bytes as detail": _raw("detail = x'7b7d'"),
    "bytes as version": _raw("version = x'c3'"),
    "bytes as time": _raw("at = x'c3'"),
    "no utf-8": _raw("reason = CAST(x'c3' AS TEXT)"),
    "no utf-8 as detail": _raw("detail = CAST(x'c3' AS TEXT)"),
    "endless number": _raw("version = 1e999"),
    "fraction": _raw("version = 1.5"),
    "word": _raw("version = 'two'"),
    "no number": _edit(detail='{"a":NaN}'),
    "number of digits": _edit(detail=f'{{"a":{"1" * 9999}}}'),
    "lists in lists": _edit(detail=f'{{"a":{"[" * 99999}{"]" * 99999}}}'),
    "lists in lists, fewer": _edit(detail=f'{{"a":{"[" * 900}{"]" * 900}}}'),
}


@pytest.mark.parametrize("tamper", GARBAGE.values(), ids=GARBAGE)
def test_what_no_event_can_be_is_named_by_number_and_hides_no_other(
    workspace: Workspace, tamper: Callable[[Connection], object]
) -> None:
    """SQLite keeps anything in any column; what cannot be digested matches no digest."""
    _three(workspace)
    append(workspace, "fabric", "note", actor="a", reason="r")
    with writing(locate(workspace)) as connection:
        tamper(connection)
    assert verify(workspace) == ["metal: event 2 was edited: its content does not match its digest"]
    told = events(workspace)
    assert [event.sequence for event in told] == [1, 1, 2, 3]
    assert json.loads(json.dumps([asdict(event) for event in told]))
    with writing(locate(workspace)) as connection:
        connection.execute(delete(EVENTS).where(EVENTS.c.sequence == 3))
        connection.execute(update(HEADS).where(HEADS.c.line == "metal").values(sequence=2))
    with pytest.raises(IntegrityError, match="behind novad's back"):
        append(workspace, "metal", "note", actor="a", reason="r")


@pytest.mark.parametrize("assignment", ["line = x'c3'", "sequence = 'two'", "sequence = 1e999"])
def test_an_event_that_lost_line_or_number_is_missed(workspace: Workspace, assignment: str) -> None:
    _three(workspace)
    with writing(locate(workspace)) as connection:
        _raw(assignment)(connection)
    assert any(problem.startswith("metal: event 2 is missing") for problem in verify(workspace))
    assert any(problem.startswith("metal: event 2 is missing") for problem in verify(workspace, "metal"))


def test_a_head_whose_line_is_no_text_is_told(workspace: Workspace) -> None:
    _three(workspace)
    with writing(locate(workspace)) as connection:
        connection.exec_driver_sql("UPDATE novad_event_heads SET line = x'c3'")
    assert len(verify(workspace)) == 2
    assert list(heads(workspace)) == ["b'\\xc3'"]


def test_an_edited_event_is_named_and_no_other(workspace: Workspace) -> None:
    _three(workspace)
    with writing(locate(workspace)) as connection:
        _edit(actor="mallory")(connection)
    assert verify(workspace, "metal") == ["metal: event 2 was edited: its content does not match its digest"]


def test_an_event_edited_together_with_its_digest_is_given_away_by_the_next(workspace: Workspace) -> None:
    _three(workspace)
    second = events(workspace, "metal")[1]
    forged = replace(second, actor="mallory")
    with writing(locate(workspace)) as connection:
        _edit(actor="mallory", digest=_digest(forged))(connection)
    assert verify(workspace, "metal") == ["metal: event 3 does not follow event 2"]


def test_a_log_whose_table_is_gone_is_told_line_by_line_and_takes_nothing_more(workspace: Workspace) -> None:
    _three(workspace)
    append(workspace, "fabric", "note", actor="a", reason="r")
    with writing(locate(workspace)) as connection:
        EVENTS.drop(connection)
    assert heads(workspace) == {"metal": 3, "fabric": 1}
    assert [problem.partition(":")[0] for problem in verify(workspace)] == ["fabric", "metal"]
    [problem] = verify(workspace, "metal")
    assert "ends with event 0, the recorded head is event 3" in problem
    with pytest.raises(IntegrityError, match="behind novad's back"):
        append(workspace, "metal", "note", actor="a", reason="r")


def test_nothing_is_added_to_a_broken_end(workspace: Workspace) -> None:
    _three(workspace)
    with writing(locate(workspace)) as connection:
        _remove(3)(connection)
    with pytest.raises(IntegrityError, match="behind novad's back"):
        append(workspace, "metal", "note", actor="a", reason="r")


def test_eight_processes_append_at_once_and_the_chain_holds(workspace: Workspace) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(workspace.root), f"writer-{number}", "5"])
        for number in range(8)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 8
    found = events(workspace, "metal")
    assert [event.sequence for event in found] == list(range(1, 41))
    assert {event.actor for event in found} == {f"writer-{number}" for number in range(8)}
    assert verify(workspace) == []
