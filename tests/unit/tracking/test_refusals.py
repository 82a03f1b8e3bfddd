"""Whatever decision is refused is on record: who asked, for what, why, and what stood against it."""

from collections.abc import Callable

import pytest
from sqlalchemy import update

from novad.config import Workspace
from novad.errors import IntegrityError, RefusedError
from novad.tracking import (
    change_threshold,
    check,
    history,
    promote,
    reject,
    resolve,
    rollback,
    standing,
)
from novad.tracking.database import EVENTS, writing
from novad.tracking.store import locate


@pytest.fixture
def published(with_versions: Callable[[int], Workspace]) -> Workspace:
    """Line `metal` with versions 1 and 2, none of them champion."""
    return with_versions(2)


@pytest.fixture
def decided(published: Workspace) -> Workspace:
    """Version 1 is champion."""
    promote(published, "metal", 1, "Ann", "first")
    return published


Ask = Callable[[Workspace], object]
REFUSED: dict[str, tuple[Ask, str, int | None, str]] = {
    "rollback": (
        lambda w: rollback(w, "metal", "Bob", "night shift"),
        "rollback", None, "version 1 has no champion before it",
    ),
    "rollback to what never was": (
        lambda w: rollback(w, "metal", "Bob", "night shift", to=2), "rollback", 2, "never champion",
    ),
    "rollback to what is": (
        lambda w: rollback(w, "metal", "Bob", "night shift", to=1), "rollback", 1, "the champion already",
    ),
    "rejection": (lambda w: reject(w, "metal", 1, "Bob", "night shift"), "rejection", 1, "is the champion"),
    "late rollback": (
        lambda w: rollback(w, "metal", "Bob", "night shift", to=2, seen=0), "rollback", 2, "never champion",
    ),
    "late rejection": (
        lambda w: reject(w, "metal", 2, "Bob", "night shift", seen=0), "rejection", 2, "somebody else",
    ),
    "late promotion": (
        lambda w: promote(w, "metal", 2, "Bob", "night shift", seen=0), "promotion", 2, "somebody else",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_decision_is_on_record(decided: Workspace, name: str) -> None:
    ask, asked, version, why = REFUSED[name]
    with pytest.raises(RefusedError, match=why) as caught:
        ask(decided)
    before, event = history(decided, "metal")
    assert (event.kind, event.version, event.actor, event.reason) == (
        "refusal",
        version,
        "Bob",
        "night shift",
    )
    assert (event.detail["asked"], event.detail["refused"]) == (asked, str(caught.value))
    assert check(decided, "metal").problems == ()
    assert standing(decided, "metal").decision == before
    assert resolve(decided, "metal").decision == before


def test_a_refusal_in_between_does_not_refuse_the_next_decision(decided: Workspace) -> None:
    seen = len(history(decided, "metal"))
    with pytest.raises(RefusedError):
        rollback(decided, "metal", "Bob", "night shift")
    promote(decided, "metal", 2, "Ann", "better", seen=seen)
    with pytest.raises(RefusedError, match="somebody else"):
        reject(decided, "metal", 1, "Bob", "dents", seen=seen)
    with pytest.raises(RefusedError, match="somebody else"):
        reject(decided, "metal", 1, "Bob", "dents", seen=99)


def test_what_needs_a_champion_is_refused_on_record_without_one(published: Workspace) -> None:
    with pytest.raises(RefusedError, match="no champion"):
        rollback(published, "metal", "Bob", "night shift")
    with pytest.raises(RefusedError, match="no champion"):
        change_threshold(published, "metal", "Bob", "night shift", value=float("nan"))
    first, second = history(published, "metal")
    assert (first.detail["asked"], first.version) == ("rollback", None)
    assert (second.detail["asked"], second.detail["given"]) == ("threshold", "--value nan")


def test_a_version_that_is_damaged_does_not_come_back_and_that_is_on_record(decided: Workspace) -> None:
    promote(decided, "metal", 2, "Ann", "better")
    bank = resolve(decided, "metal", 1).folder / "bank.safetensors"
    bank.write_bytes(b"x")
    with pytest.raises(IntegrityError, match=r"bank\.safetensors"):
        rollback(decided, "metal", "Bob", "worse")
    event = history(decided, "metal")[-1]
    assert (event.kind, event.version, event.detail["asked"]) == ("refusal", 1, "rollback")
    assert "bank.safetensors" in event.detail["refused"]


def test_a_log_that_changes_meanwhile_takes_nothing_more(
    decided: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edited(workspace: Workspace, *_rest: object) -> list[object]:
        with writing(locate(workspace)) as connection:
            connection.execute(update(EVENTS).values(actor="Eve"))
        return []

    monkeypatch.setattr("novad.tracking.registry.gate", edited)
    with pytest.raises(IntegrityError, match="nothing is added"):
        promote(decided, "metal", 2, "Bob", "better")
    assert len(history(decided, "metal")) == 1
