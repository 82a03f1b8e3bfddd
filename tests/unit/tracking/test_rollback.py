"""Going back: which champion comes back, who may say so, and what an audit tells afterwards."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

import pytest
from sqlalchemy import update

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError, RefusedError
from novad.tracking import (
    check,
    history,
    parse_time,
    promote,
    registry,
    resolution,
    resolve,
    rollback,
    standing,
)
from novad.tracking.database import EVENTS, writing
from novad.tracking.decisions import log_decisions
from novad.tracking.digests import file_digest
from novad.tracking.events import MAKES_CHAMPION, Event, append, champion_stack
from novad.tracking.store import locate, open_client
from tracking_fixtures import logged_decision


@pytest.fixture
def published(with_versions: Callable[[int], Workspace]) -> Workspace:
    """Line `metal` with versions 1 to 3, none of them champion."""
    return with_versions(3)


def _champion(workspace: Workspace) -> tuple[int, int]:
    """By novad and by MLflow's alias."""
    alias = open_client(workspace).get_model_version_by_alias("metal", "champion").version
    return resolve(workspace, "metal").version, int(alias)


def test_the_champion_before_comes_back_with_a_name_and_a_reason(published: Workspace) -> None:
    promote(published, "metal", 1, "Ann", "first")
    promote(published, "metal", 2, "Ann", "better")
    event = rollback(published, "metal", "Bob", "false alarms on night shift")
    assert (event.kind, event.version, event.actor) == ("rollback", 1, "Bob")
    assert event.detail["replaced"] == 2
    assert _champion(published) == (1, 1)
    assert resolve(published, "metal").approver == "Bob"
    assert history(published, "metal")[-1] == event


def test_a_threshold_of_another_version_is_not_taken_for_the_champions(
    published: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(published, "metal", 1, "Ann", "first")
    checked = resolution.checked_model

    def slow(*arguments: object) -> object:
        monkeypatch.setattr(resolution, "checked_model", checked)
        promote(published, "metal", 2, "Ann", "better")
        append(published, "metal", "threshold", actor="Ann", reason="stock", version=2, detail={"fail": 9.0})
        return checked(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(resolution, "checked_model", slow)
    found = resolve(published, "metal")
    assert (found.version, found.threshold) == (1, None)
    found = resolve(published, "metal")
    assert found.threshold is not None
    assert (found.version, found.threshold.version) == (2, 2)


def test_no_decision_and_no_audit_trusts_an_edited_log(published: Workspace) -> None:
    for version in (1, 2, 3):
        promote(published, "metal", version, "Ann", "better")
    with writing(locate(published)) as connection:
        connection.execute(update(EVENTS).where(EVENTS.c.sequence == 2).values(actor="Eve"))
    for ask in (
        lambda: promote(published, "metal", 1, "Ann", "again"),
        lambda: rollback(published, "metal", "Bob", "worse"),
        lambda: standing(published, "metal"),
        lambda: resolve(published, "metal"),
    ):
        with pytest.raises(IntegrityError, match="event 2 was edited"):
            ask()
    assert len(history(published, "metal")) == 3


def test_two_rollbacks_go_two_back_and_a_named_one_goes_anywhere(published: Workspace) -> None:
    for version in (1, 2, 3):
        promote(published, "metal", version, "Ann", "better")
    assert [rollback(published, "metal", "Bob", "worse").version for _ in range(2)] == [2, 1]
    with pytest.raises(RefusedError, match="no champion before it"):
        rollback(published, "metal", "Bob", "worse")
    assert rollback(published, "metal", "Bob", "it was not that", to=3).version == 3
    assert _champion(published) == (3, 3)
    assert rollback(published, "metal", "Bob", "it was").version == 1


def test_what_never_was_champion_cannot_come_back(published: Workspace) -> None:
    with pytest.raises(RefusedError, match="no champion"):
        rollback(published, "metal", "Bob", "worse")
    promote(published, "metal", 1, "Ann", "first")
    promote(published, "metal", 2, "Ann", "better")
    with pytest.raises(RefusedError, match="version 3 was never champion"):
        rollback(published, "metal", "Bob", "worse", to=3)
    with pytest.raises(RefusedError, match="version 2 is the champion already"):
        rollback(published, "metal", "Bob", "worse", to=2)
    with pytest.raises(ConfigError, match="--approver"):
        rollback(published, "metal", " ", "worse")
    assert _champion(published) == (2, 2)


def test_a_damaged_version_does_not_come_back(published: Workspace) -> None:
    promote(published, "metal", 1, "Ann", "first")
    folder = resolve(published, "metal").folder
    promote(published, "metal", 2, "Ann", "better")
    with (folder / "bank.safetensors").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(IntegrityError, match=r"bank\.safetensors"):
        rollback(published, "metal", "Bob", "worse")
    assert _champion(published) == (2, 2)


def test_a_rollback_loses_against_a_decision_that_came_between(
    published: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(published, "metal", 1, "Ann", "first")
    promote(published, "metal", 2, "Ann", "better")
    checked = registry.checked_model

    def slow(*arguments: object) -> object:
        monkeypatch.setattr(registry, "checked_model", checked)
        promote(published, "metal", 3, "Cem", "best")
        return checked(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(registry, "checked_model", slow)
    with pytest.raises(RefusedError, match="somebody else"):
        rollback(published, "metal", "Bob", "worse")
    assert _champion(published) == (3, 3)
    assert [event.kind for event in history(published, "metal")][-2:] == ["promotion", "refusal"]


def test_an_audit_tells_who_served_at_every_time(published: Workspace) -> None:
    assert standing(published, "metal").decision is None
    decided = [
        promote(published, "metal", 1, "Ann", "first"),
        promote(published, "metal", 2, "Ann", "better"),
        rollback(published, "metal", "Bob", "worse"),
    ]
    lock = file_digest(published.path("requirements.lock"))
    published.path("requirements.lock").write_text("numpy==3\n")
    for event in decided:
        found = standing(published, "metal", datetime.fromisoformat(event.at))
        assert found.decision == event
        assert found.model is not None
        assert found.model.version == event.version
        assert found.thresholds == found.model.thresholds
        assert found.model.requirements_lock == lock
    assert check(published, "metal").problems == ()


def test_an_audit_tells_which_other_versions_still_judged(published: Workspace) -> None:
    first, second = [promote(published, "metal", number, "Ann", "better") for number in (1, 2)]
    last = promote(published, "metal", 3, "Ann", "better")
    told = [(1, first.at, False), (1, second.at, False), (2, last.at, False), (1, last.at, True)]
    decisions = [
        logged_decision(prediction_id=str(number), version=version, at=at, shadow=shadow)
        for number, (version, at, shadow) in enumerate(told)
    ]
    log_decisions(published, decisions)
    for event, others in ((first, {}), (second, {1: second.at}), (last, {2: last.at})):
        assert standing(published, "metal", datetime.fromisoformat(event.at)).others == others


def test_who_serves_now_is_the_last_word_though_its_clock_was_ahead(
    published: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(days=1)

    monkeypatch.setattr("novad.tracking.events.datetime", Ahead)
    event = promote(published, "metal", 1, "Ann", "first")
    assert standing(published, "metal").decision == event
    assert standing(published, "metal", datetime.now(UTC)).decision is None


@pytest.mark.parametrize("text", ["yesterday", "2999-01-01", "2026-13-01", "0001-01-01T00:00+14:00"])
def test_a_time_that_is_none_or_not_yet_is_wrong_use(text: str) -> None:
    with pytest.raises(ConfigError, match="--at"):
        parse_time(text)


def test_a_time_without_a_zone_is_utc() -> None:
    assert parse_time("2026-01-02T03:04") == parse_time("2026-01-02T04:04+01:00")


def test_the_stack_follows_promotions_and_rollbacks() -> None:
    def stack(*decisions: tuple[str, int]) -> list[int | None]:
        chain = [
            Event("metal", at, kind, version, "Ann", "why", "", {}, "", "")
            for at, (kind, version) in enumerate(decisions, 1)
        ]
        return [event.version for event in champion_stack(chain)]

    promoted, back = MAKES_CHAMPION
    assert stack((promoted, 1), (promoted, 2), ("refusal", 3)) == [1, 2]
    assert stack((promoted, 1), (promoted, 1)) == [1]
    assert stack((promoted, 1), (promoted, 2), (promoted, 3), (back, 1)) == [1]
    assert stack((promoted, 1), (promoted, 2), (back, 1), (back, 2)) == [1, 2]
