"""Signatures over the event log: who can write to its tables cannot write it anew without the key."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, select

from novad.errors import ConfigError
from novad.tracking.database import SIGNATURES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "SIGNING_KEY",
    "VERIFYING_KEY",
    "fingerprint",
    "sign",
    "signature_problems",
    "signatures_of",
    "signing_key",
    "unsigned_log",
    "verifying_key",
]

SIGNING_KEY, VERIFYING_KEY = "NOVAD_SIGNING_KEY_FILE", "NOVAD_VERIFYING_KEY_FILE"


def signing_key() -> "Ed25519PrivateKey | None":
    """The key that ``NOVAD_SIGNING_KEY_FILE`` names; None where it names none.

    Raises:
        ConfigError: not an Ed25519 private key, a file that others can read, or not the key whose public half
            ``NOVAD_VERIFYING_KEY_FILE`` names: what the one signs the other would refuse, for ever.
    """
    private, public = _private_key(), _public_key()
    if private is None or public is None:
        return private
    if private.public_key().public_bytes_raw() != public.public_bytes_raw():
        raise ConfigError(
            f"{SIGNING_KEY}, {VERIFYING_KEY}: {_named(SIGNING_KEY)} and {_named(VERIFYING_KEY)} are no pair; "
            f"name the public half of the key that signs, or leave {VERIFYING_KEY} out"
        )
    return private


def verifying_key() -> "Ed25519PublicKey | None":
    """The public key that ``NOVAD_VERIFYING_KEY_FILE`` names, else that of the signing key, else None.

    Raises:
        ConfigError: not an Ed25519 key of its kind, or two keys that are no pair.
    """
    private = signing_key()
    return private.public_key() if private is not None else _public_key()


def sign(key: "Ed25519PrivateKey", digest: str) -> str:
    """Signature of an event's digest, 128 hexadecimal digits."""
    return key.sign(_message(digest)).hex()


def fingerprint(key: "Ed25519PublicKey") -> str:
    """The sha256 of a public key's 32 bytes: by which people tell keys apart."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def signatures_of(connection: Connection, line: str | None) -> dict[str, dict[int, str]]:
    """Signatures by line and sequence, of one line or all; none in a database of before there were any."""
    found: dict[str, dict[int, str]] = {}
    if inspect(connection).has_table(SIGNATURES.name):
        query = select(SIGNATURES) if line is None else select(SIGNATURES).where(SIGNATURES.c.line == line)
        for row in connection.execute(query):
            if isinstance(row.sequence, int):  # SQLite keeps anything in any column.
                found.setdefault(row.line, {})[row.sequence] = row.signature
    return found


def signature_problems(
    line: str, digests: Iterable[tuple[int, str]], signatures: Mapping[int, str], key: "Ed25519PublicKey"
) -> list[str]:
    """One sentence per event that should carry a signature by ``key`` and does not.

    Events before the first signed one are covered by it, since its digest covers theirs.

    Args:
        line: product line.
        digests: sequence and digest of its events, in order.
        signatures: by sequence.
        key: that signs.
    """
    if not signatures:
        return [unsigned_log(line)] if any(True for _ in digests) else []
    return [
        f"{line}: event {sequence} is not signed by the key at hand"
        for sequence, digest in digests
        if sequence >= min(signatures) and not _signed(key, digest, signatures.get(sequence))
    ]


def unsigned_log(line: str) -> str:
    """What is wrong with a log without signatures, and what a person can do who knows it never had one."""
    return (
        f"{line}: no event is signed by the key at hand; if none ever was, "
        f"`novad audit {line} --adopt --approver WHO --reason WHY` puts the log under it"
    )


def _private_key() -> "Ed25519PrivateKey | None":
    path = _named(SIGNING_KEY)
    if path is None:
        return None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(SIGNING_KEY, path)
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{SIGNING_KEY}: {path}: others can read the key; chmod 600 it")
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{SIGNING_KEY}: {path}: not an Ed25519 private key without a password; "
            "`openssl genpkey -algorithm ed25519 -out FILE` makes one"
        )
    return key


def _public_key() -> "Ed25519PublicKey | None":
    path = _named(VERIFYING_KEY)
    if path is None:
        return None
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read(VERIFYING_KEY, path))
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(
            f"{VERIFYING_KEY}: {path}: not an Ed25519 public key; `openssl pkey -in KEY -pubout` tells it"
        )
    return key


def _signed(key: "Ed25519PublicKey", digest: str, signature: str | None) -> bool:
    from cryptography.exceptions import InvalidSignature

    if signature is None:
        return False
    try:
        key.verify(bytes.fromhex(signature), _message(digest))
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def _message(digest: str) -> bytes:
    # No other use of the key can be mistaken for this one.
    return f"novad event {digest}".encode("ascii")


def _named(setting: str) -> Path | None:
    named = os.environ.get(setting, "").strip()
    return Path(named) if named else None


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting}: {path}: {error.strerror}") from None
