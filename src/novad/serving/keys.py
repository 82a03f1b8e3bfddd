"""API keys of the service: who may score, who may look, who may administer; only their digests are stored."""

import hashlib
import hmac
import json
import os
import secrets
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

from novad.config import Workspace
from novad.config.whole_file import write_whole
from novad.errors import ConfigError

__all__ = ["KeyRing", "Role", "StoredKey", "add_key", "keys_file", "read_keys"]


class Role(IntEnum):
    """What a key may do; each role may do what those before it may."""

    SCORE = 1
    """Score images, list lines."""
    REVIEW = 2
    """Look decisions, versions and figures up, record verdicts."""
    ADMIN = 3
    """Approve, reject and roll back; make the service look for a new champion at once."""


@dataclass(frozen=True)
class StoredKey:
    """One key as the file knows it."""

    role: str
    sha256: str
    made_at: str


def keys_file(workspace: Workspace) -> Path:
    """Where the keys are: ``NOVAD_KEYS_FILE``, else a file in the workspace's state."""
    named = os.environ.get("NOVAD_KEYS_FILE", "").strip()
    return Path(named) if named else workspace.state / "serve" / "keys.json"


def read_keys(file: Path) -> list[StoredKey]:
    """The stored keys; none when there is no file.

    Raises:
        ConfigError: not a file of keys, or others than its owner may write it.
    """
    try:
        with file.open("rb") as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigError(f"{file}: others may write this file and let themselves in; chmod 600 it")
            keys = [StoredKey(**entry) for entry in json.load(stream)["keys"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{file}: not a file of keys that `novad serve` wrote") from None
    if any(key.role not in Role.__members__ or not _is_digest(key.sha256) for key in keys):
        raise ConfigError(f"{file}: a key has no known role or no sha256")
    return keys


def add_key(file: Path, role: Role) -> str:
    """Make a key of ``role`` and store its digest, in a file that only its owner can read.

    Returns:
        The key itself, which is nowhere stored: whoever calls this shows it once.
    Raises:
        ConfigError: the file is not a file of keys, or cannot be written.
    """
    key = secrets.token_urlsafe(32)
    made = StoredKey(role.name, _digest(key), datetime.now(UTC).isoformat(timespec="seconds"))
    _replace(file, [*read_keys(file), made])
    return key


class KeyRing:
    """The keys of a running service; a change of the file counts from the next request on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[int, ...] | None = None
        self._keys: list[StoredKey] = []

    def role(self, key: str) -> Role | None:
        """Role of a key, or None; takes as long whichever key it is not.

        Raises:
            ConfigError: the file was damaged.
        """
        self._read_when_changed()
        given = _digest(key)
        roles = [Role[known.role] for known in self._keys if hmac.compare_digest(known.sha256, given)]
        return max(roles, default=None)

    def _read_when_changed(self) -> None:
        try:
            status = self._file.stat()
        except OSError:
            self._seen, self._keys = None, []
            return
        present = (status.st_ino, status.st_mtime_ns, status.st_size)
        if present != self._seen:
            self._keys = read_keys(self._file)
            self._seen = present


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _is_digest(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _replace(file: Path, keys: Sequence[StoredKey]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{file}: the keys cannot be written: {error.strerror}") from error
    write_whole(file, json.dumps({"keys": [asdict(key) for key in keys]}, indent=2).encode(), mode=0o600)
