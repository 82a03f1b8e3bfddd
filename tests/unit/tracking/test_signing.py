"""Signed events: with the key a rewritten log is found out, whatever else was rewritten with it."""

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from sqlalchemy import delete, insert, select, update

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError
from novad.tracking.adoption import adopt_key
from novad.tracking.database import EVENTS, HEADS, SIGNATURES, writing
from novad.tracking.events import KEY_ADOPTED, append, events, intact_events, verify
from novad.tracking.signing import SIGNING_KEY, VERIFYING_KEY, fingerprint, sign
from novad.tracking.store import locate

LINE = "metal"


def _keep(key: object, path: Path, *, password: bytes | None = None) -> Path:
    hidden = BestAvailableEncryption(password) if password else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))  # type: ignore[attr-defined]
    path.chmod(0o600)
    return path


def _publish(key: Ed25519PrivateKey, path: Path) -> Path:
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ed25519PrivateKey:
    private = Ed25519PrivateKey.generate()
    monkeypatch.setenv(SIGNING_KEY, str(_keep(private, tmp_path / "key.pem")))
    return private


def _decide(workspace: Workspace, *names: str) -> None:
    for name in names:
        append(workspace, LINE, "promotion", actor=name, reason="good", version=1)


def test_signed_events_are_intact_for_whoever_has_the_public_key(
    workspace: Workspace, key: Ed25519PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _decide(workspace, "ann", "bob")
    public = _publish(key, tmp_path / "public.pem")
    assert verify(workspace) == []
    monkeypatch.delenv(SIGNING_KEY)
    monkeypatch.setenv(VERIFYING_KEY, str(public))
    assert [event.actor for event in intact_events(workspace, LINE)] == ["ann", "bob"]


@pytest.mark.parametrize("signatures", ["kept", "removed", "by another key"])
def test_a_log_that_was_written_anew_is_found_out(
    signatures: str, workspace: Workspace, key: Ed25519PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests and head of the new log agree, as one with write access can make them."""
    _decide(workspace, "ann", "bob")
    named = os.environ[SIGNING_KEY]
    monkeypatch.delenv(SIGNING_KEY)
    with writing(locate(workspace)) as connection:
        kept = [dict(row) for row in connection.execute(select(SIGNATURES)).mappings()]
        for table in (EVENTS, HEADS, SIGNATURES):
            connection.execute(delete(table))
    _decide(workspace, "ann", "mallory")
    assert verify(workspace) == []  # without the key nobody can tell
    if signatures == "by another key":
        other = Ed25519PrivateKey.generate()
        kept = [
            {"line": LINE, "sequence": event.sequence, "signature": sign(other, event.digest)}
            for event in intact_events(workspace, LINE)
        ]
    if signatures != "removed":
        with writing(locate(workspace)) as connection:
            connection.execute(insert(SIGNATURES), kept)
    monkeypatch.setenv(SIGNING_KEY, named)
    problems = verify(workspace)
    assert problems
    assert all("signed by the key at hand" in problem for problem in problems)
    if signatures != "removed":
        assert len(problems) == 2  # both events, the first signed one too
    with pytest.raises(IntegrityError, match="signed by the key"):
        intact_events(workspace, LINE)


@pytest.fixture
def unsigned(workspace: Workspace, key: Ed25519PrivateKey, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Lines `metal` and `fabric` with events of before the key."""
    with monkeypatch.context() as before:
        before.delenv(SIGNING_KEY)
        _decide(workspace, "ann", "bob")
        append(workspace, "fabric", "note", actor="ann", reason="good")
    return workspace


def test_an_unsigned_log_is_refused_by_name_of_the_way_out_and_takes_no_event(unsigned: Workspace) -> None:
    """All its signatures may have been removed: the first one is for a person to give."""
    said = rf"{LINE}: no event is signed by the key at hand; .*`novad audit {LINE} --adopt"
    with pytest.raises(IntegrityError, match=said):
        intact_events(unsigned, LINE)
    with pytest.raises(IntegrityError, match=said):
        _decide(unsigned, "mallory")
    assert [event.actor for event in events(unsigned, LINE)] == ["ann", "bob"]


def test_what_came_before_the_key_is_covered_once_a_person_adopts_it(
    unsigned: Workspace, key: Ed25519PrivateKey
) -> None:
    [event] = adopt_key(unsigned, "Cem", "never signed before", LINE)
    assert (event.kind, event.sequence, event.actor) == (KEY_ADOPTED, 3, "Cem")
    assert event.detail == {"key": fingerprint(key.public_key())}
    assert verify(unsigned, LINE) == []
    assert [each.line for each in adopt_key(unsigned, "Cem", "the others, too")] == ["fabric"]
    _decide(unsigned, "dan")
    assert verify(unsigned) == []
    assert adopt_key(unsigned, "Cem", "once more") == []
    with writing(locate(unsigned)) as connection:
        connection.execute(
            update(EVENTS).where(EVENTS.c.line == LINE, EVENTS.c.sequence == 1).values(actor="mallory")
        )
    assert verify(unsigned) == [
        f"{LINE}: event 1 was edited: its content does not match its digest",
    ]


def test_a_log_with_any_other_fault_is_not_adopted_and_neither_is_another_line(unsigned: Workspace) -> None:
    with writing(locate(unsigned)) as connection:
        connection.execute(
            update(EVENTS).where(EVENTS.c.line == LINE, EVENTS.c.sequence == 1).values(actor="mallory")
        )
    with pytest.raises(IntegrityError, match=r"event 1 was edited.*no key is adopted") as refused:
        adopt_key(unsigned, "Cem", "looks good")
    assert "no event is signed" not in str(refused.value)
    assert [event.kind for event in events(unsigned)] == ["note", "promotion", "promotion"]


def test_a_log_whose_signatures_were_removed_is_not_adopted_anew(unsigned: Workspace) -> None:
    adopt_key(unsigned, "Cem", "never signed before")
    with writing(locate(unsigned)) as connection:
        connection.execute(delete(SIGNATURES))
    with pytest.raises(IntegrityError, match=f"{LINE}: event 3 is the adoption of a key"):
        adopt_key(unsigned, "Cem", "never signed before", LINE)
    with writing(locate(unsigned)) as connection:
        forged = sign(Ed25519PrivateKey.generate(), "f" * 64)
        connection.execute(insert(SIGNATURES).values(line=LINE, sequence=3, signature=forged))
    with pytest.raises(IntegrityError, match=f"{LINE}: event 3 is not signed by the key at hand"):
        adopt_key(unsigned, "Cem", "never signed before", LINE)


def test_a_key_is_adopted_by_a_name_a_reason_and_a_key_that_signs(
    unsigned: Workspace, key: Ed25519PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, reason in (("", "why"), ("Cem", " ")):
        with pytest.raises(ConfigError, match="must not be empty"):
            adopt_key(unsigned, name, reason)
    monkeypatch.delenv(SIGNING_KEY)
    monkeypatch.setenv(VERIFYING_KEY, str(_publish(key, tmp_path / "public.pem")))
    with pytest.raises(ConfigError, match=f"{SIGNING_KEY}: must name the key"):
        adopt_key(unsigned, "Cem", "why")
    assert len(events(unsigned)) == 3


def test_nobody_adds_to_a_signed_log_without_the_key(
    workspace: Workspace, key: Ed25519PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    _decide(workspace, "ann")
    monkeypatch.delenv(SIGNING_KEY)
    with pytest.raises(ConfigError, match=f"{LINE}: its events are signed; {SIGNING_KEY} must name the key"):
        _decide(workspace, "bob")
    assert [event.actor for event in intact_events(workspace, LINE)] == ["ann"]
    append(workspace, "fabric", "note", actor="bob", reason="another line has no signature")


def test_a_key_that_cannot_be_used_is_named_and_nothing_is_written(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, wrong = Ed25519PrivateKey.generate(), generate_private_key(65537, 2048)
    open_to_all = _keep(private, tmp_path / "open.pem")
    open_to_all.chmod(0o644)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no key")
    garbage.chmod(0o600)
    for path, said in (
        (tmp_path / "absent.pem", "No such file"),
        (open_to_all, "others can read the key"),
        (garbage, "not an Ed25519 private key"),
        (_keep(wrong, tmp_path / "rsa.pem"), "not an Ed25519 private key"),
        (_keep(private, tmp_path / "locked.pem", password=b"secret"), "without a password"),
    ):
        monkeypatch.setenv(SIGNING_KEY, str(path))
        with pytest.raises(ConfigError, match=said) as refused:
            _decide(workspace, "ann")
        assert str(path) in str(refused.value)
    monkeypatch.delenv(SIGNING_KEY)
    assert intact_events(workspace, LINE) == []
    monkeypatch.setenv(VERIFYING_KEY, str(garbage))
    with pytest.raises(ConfigError, match="not an Ed25519 public key"):
        verify(workspace)


@pytest.mark.parametrize("garbage", ["signature = x'c3'", "signature = 'no hex'", "sequence = 'one'"])
def test_a_signature_that_can_be_none_is_told(
    garbage: str, workspace: Workspace, key: Ed25519PrivateKey
) -> None:
    _decide(workspace, "ann", "bob")
    with writing(locate(workspace)) as connection:
        connection.exec_driver_sql(f"UPDATE novad_event_signatures SET {garbage} WHERE sequence = 2")  # noqa: S608
    assert verify(workspace) == [f"{LINE}: event 2 is not signed by the key at hand"]


def test_two_keys_that_are_no_pair_are_named_before_anything_is_written(
    workspace: Workspace, key: Ed25519PrivateKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the one signs the other refuses, and nothing is ever taken out of the log."""
    named = _publish(Ed25519PrivateKey.generate(), tmp_path / "another.pem")
    monkeypatch.setenv(VERIFYING_KEY, str(named))
    for attempt in (lambda: _decide(workspace, "ann"), lambda: verify(workspace)):
        with pytest.raises(ConfigError, match=f"{SIGNING_KEY}, {VERIFYING_KEY}: .*another.pem are no pair"):
            attempt()
    monkeypatch.setenv(VERIFYING_KEY, str(_publish(key, tmp_path / "own.pem")))
    assert intact_events(workspace, LINE) == []
    _decide(workspace, "ann")
    assert verify(workspace) == []
