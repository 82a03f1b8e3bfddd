"""API keys: only digests are stored, only their owner reads them, roles contain each other."""

import json
import stat
from pathlib import Path

import pytest

from novad.config import Workspace
from novad.errors import ConfigError
from novad.serving.keys import KeyRing, Role, add_key, keys_file, read_keys


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve" / "keys.json"


def test_a_key_has_its_role_and_is_nowhere_stored(file: Path) -> None:
    keys = {role: add_key(file, role) for role in Role}
    ring = KeyRing(file)
    assert {role: ring.role(key) for role, key in keys.items()} == {role: role for role in Role}
    assert len(set(keys.values())) == 3
    assert all(len(key) >= 40 and key not in file.read_text() for key in keys.values())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("given", ["", " ", "x" * 10_000, "\udcff", "ключ", "\0"])
def test_another_key_has_no_role(given: str, file: Path) -> None:
    key = add_key(file, Role.ADMIN)
    ring = KeyRing(file)
    assert ring.role(given) is None
    assert ring.role(key + given) is None or given == ""
    assert ring.role(read_keys(file)[0].sha256) is None, "the digest is no key"


def test_a_key_counts_from_its_making_until_its_removal(file: Path) -> None:
    ring = KeyRing(file)
    assert ring.role("anything") is None
    first = add_key(file, Role.SCORE)
    assert ring.role(first) is Role.SCORE
    second = add_key(file, Role.REVIEW)
    assert (ring.role(first), ring.role(second)) == (Role.SCORE, Role.REVIEW)
    document = json.loads(file.read_text())
    file.write_text(json.dumps({"keys": document["keys"][1:]}))
    assert (ring.role(first), ring.role(second)) == (None, Role.REVIEW)
    file.unlink()
    assert ring.role(second) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"keys": 1}',
        '{"keys": [{}]}',
        '{"keys": [{"role": "SCORE", "sha256": "x", "made_at": ""}]}',
        '{"keys": [{"role": "ROOT", "sha256": "%s", "made_at": ""}]}' % ("0" * 64),
        '{"keys": [{"role": "SCORE", "sha256": "%s", "made_at": "", "key": "x"}]}' % ("0" * 64),
    ],
)
def test_a_damaged_file_lets_nobody_in_and_is_not_written_over(text: str, file: Path) -> None:
    file.parent.mkdir()
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match=r"keys\.json"):
        KeyRing(file).role("anything")
    with pytest.raises(ConfigError, match=r"keys\.json"):
        add_key(file, Role.SCORE)
    assert file.read_text() == text


def test_a_file_that_others_may_write_is_refused(file: Path) -> None:
    add_key(file, Role.SCORE)
    file.chmod(0o620)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_keys(file)


def test_the_file_lies_in_the_workspace_unless_the_environment_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOVAD_KEYS_FILE", raising=False)
    assert keys_file(Workspace(tmp_path)) == tmp_path / ".novad" / "serve" / "keys.json"
    monkeypatch.setenv("NOVAD_KEYS_FILE", "/elsewhere/keys.json")
    assert keys_file(Workspace(tmp_path)) == Path("/elsewhere/keys.json")
