"""Verdicts on decisions, rejections of versions, and the decision log as reviewers read it."""

import sqlite3
from collections.abc import Callable

import pytest

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError, RefusedError
from novad.tracking import (
    LoggedDecision,
    champion_event,
    give_verdict,
    history,
    latest_decisions,
    log_decisions,
    promote,
    reject,
    rollback,
    trace,
    verdicts_on,
    verify,
)
from novad.tracking.trace import PredictionTrace
from tracking_fixtures import logged_decision

HOSTILE = "<img src=x onerror=alert(1)> \"' \\ ${7*7} 検査"


def _decision(number: int, **changes: object) -> LoggedDecision:
    told = {
        "prediction_id": f"{number:08d}-1111-4111-8111-111111111111",
        "at": f"2026-11-24T14:00:{number:02d}.000000+00:00",
    }
    return logged_decision(**{**told, **changes})


def _numbers(workspace: Workspace, **wanted: object) -> list[int]:
    found = latest_decisions(workspace, **wanted)  # type: ignore[arg-type]
    return [int(each.decision.prediction_id[:8]) for each in found]


@pytest.fixture
def log(workspace: Workspace) -> list[LoggedDecision]:
    """Six decisions; the last two at one moment, one of another line, one in the shadow."""
    written = [
        _decision(1, decision="FAIL"),
        _decision(2, line="glass"),
        _decision(3, shadow=True),
        _decision(4, decision="REVIEW"),
        _decision(5),
        _decision(6, at=_decision(5).at),
    ]
    log_decisions(workspace, written)
    return written


def test_the_newest_come_first_and_the_shadow_stays_out(
    workspace: Workspace, log: list[LoggedDecision]
) -> None:
    assert _numbers(workspace) == [6, 5, 4, 2, 1]
    assert _numbers(workspace, line="metal") == [6, 5, 4, 1]
    assert _numbers(workspace, decision="FAIL") == [1]
    assert _numbers(workspace, line="glass", decision="FAIL") == []


def test_page_by_page_nothing_is_shown_twice_or_left_out(
    workspace: Workspace, log: list[LoggedDecision]
) -> None:
    shown: list[int] = []
    before = None
    while page := latest_decisions(workspace, before=before, limit=1):
        shown += [int(each.decision.prediction_id[:8]) for each in page]
        before = page[-1].decision.prediction_id
    assert shown == [6, 5, 4, 2, 1]
    assert _numbers(workspace, before="nobody") == []


def test_of_several_verdicts_the_newest_counts_and_all_stay(
    workspace: Workspace, log: list[LoggedDecision]
) -> None:
    first = give_verdict(workspace, log[0], "good", "ada", "looks clean")
    second = give_verdict(workspace, log[0], "defect", "ben", HOSTILE, defect_type="scratch")
    other = give_verdict(workspace, log[5], "good", "ada", "as it says")
    assert verdicts_on(workspace, [log[0].prediction_id, log[3].prediction_id]) == {
        log[0].prediction_id: [first, second]
    }
    assert (first.image_sha256, second.reason) == (log[0].image_sha256, HOSTILE)
    assert _numbers(workspace, verdict="defect") == [1]
    assert _numbers(workspace, verdict="good") == [6]
    assert _numbers(workspace, verdict="none") == [5, 4, 2]
    told = {each.decision.prediction_id: each.verdict for each in latest_decisions(workspace)}
    assert (told[log[0].prediction_id], told[log[5].prediction_id]) == (second, other)
    assert told[log[4].prediction_id] is None


def test_a_verdict_is_signed_and_a_good_part_has_no_defect(
    workspace: Workspace, log: list[LoggedDecision]
) -> None:
    for actor, reason in (("", "why"), ("ada", " ")):
        with pytest.raises(ConfigError, match="must not be empty"):
            give_verdict(workspace, log[0], "good", actor, reason)
    with pytest.raises(ConfigError, match="no defect type"):
        give_verdict(workspace, log[0], "good", "ada", "why", defect_type="dent")
    assert verdicts_on(workspace, [log[0].prediction_id]) == {}


def test_a_database_from_before_the_verdicts_is_read_and_completed(
    workspace: Workspace, log: list[LoggedDecision]
) -> None:
    with sqlite3.connect(workspace.state / "mlflow.db") as connection:
        connection.execute("DROP TABLE novad_verdicts")
        connection.execute("DROP INDEX ix_novad_decisions_at")
    assert _numbers(workspace, verdict="none") == [6, 5, 4, 2, 1]
    assert _numbers(workspace, verdict="good") == []
    give_verdict(workspace, log[0], "good", "ada", "why")
    assert _numbers(workspace, verdict="good") == [1]
    with sqlite3.connect(workspace.state / "mlflow.db") as connection:
        indexes = {row[1] for row in connection.execute("PRAGMA index_list(novad_decisions)")}
    assert "ix_novad_decisions_at" in indexes


def test_before_the_first_decision_there_is_nothing_to_review(workspace: Workspace) -> None:
    assert latest_decisions(workspace) == []
    assert not workspace.state.exists()


@pytest.fixture
def published(with_versions: Callable[[int], Workspace]) -> Workspace:
    """Line `metal` with versions 1 (the champion) and 2."""
    made = with_versions(2)
    promote(made, "metal", 1, "ada", "first")
    return made


def test_a_rejection_is_on_record_and_leaves_the_champion(published: Workspace) -> None:
    event = reject(published, "metal", 2, "ben", HOSTILE)
    assert history(published, "metal")[-1] == event
    assert (event.kind, event.version, event.actor, event.reason) == ("rejection", 2, "ben", HOSTILE)
    champion = champion_event(published, "metal")
    assert champion is not None
    assert champion.version == 1
    assert verify(published) == []
    promote(published, "metal", 2, "ada", "measured again")
    assert verify(published) == []


def test_a_rejection_that_was_edited_is_found(published: Workspace) -> None:
    reject(published, "metal", 2, "ben", "dents")
    with sqlite3.connect(published.state / "mlflow.db") as connection:
        connection.execute("UPDATE novad_events SET actor = 'ada' WHERE kind = 'rejection'")
    assert verify(published)
    with pytest.raises(IntegrityError):
        reject(published, "metal", 2, "ben", "again")


def test_the_champion_an_unknown_version_and_nobody_are_refused(published: Workspace) -> None:
    with pytest.raises(RefusedError, match="is the champion"):
        reject(published, "metal", 1, "ben", "why")
    with pytest.raises(ConfigError, match="version 9"):
        reject(published, "metal", 9, "ben", "why")
    with pytest.raises(ConfigError, match="must not be empty"):
        reject(published, "metal", 2, " ", "why")
    assert [event.kind for event in history(published, "metal")] == ["promotion", "refusal"]


@pytest.mark.parametrize("decide", ["promote", "reject", "rollback"])
def test_who_decides_on_an_old_view_is_refused(decide: str, published: Workspace) -> None:
    promote(published, "metal", 2, "ada", "second")
    acts = {
        "promote": lambda seen: promote(published, "metal", 1, "ben", "old view", seen=seen),
        "reject": lambda seen: reject(published, "metal", 1, "ben", "old view", seen=seen),
        "rollback": lambda seen: rollback(published, "metal", "ben", "old view", seen=seen),
    }
    with pytest.raises(RefusedError, match="somebody else"):
        acts[decide](1)
    champion = champion_event(published, "metal")
    assert champion is not None
    assert champion.version == 2
    acts[decide](len(history(published, "metal")))


def test_a_trace_tells_every_verdict(published: Workspace) -> None:
    from novad.tracking import resolve

    digest = resolve(published, "metal", 1).detector_digest
    decision = _decision(1, detector_digest=digest, at="2099-01-01T00:00:00.000000+00:00")
    log_decisions(published, [decision])
    given = [give_verdict(published, decision, "defect", "ada", "seen", kind) for kind in ("dent", None)]
    found = trace(published, decision.prediction_id)
    assert isinstance(found, PredictionTrace)
    assert list(found.verdicts) == given
