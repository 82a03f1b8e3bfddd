"""What a workspace holds, as digests: equal before and after means that nothing was lost or doubled."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import NullPool, create_engine, inspect, text

__all__ = ["database_digest", "file_digests"]


def file_digests(root: Path, *folders: str) -> dict[str, str]:
    """SHA-256 of every file below some folders of ``root``, hidden ones too, by its path."""
    found = (path for folder in folders for path in (root / folder).rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): _sha256([path.read_bytes()]) for path in sorted(found)}


def database_digest(address: str) -> str:
    """One digest of every row of every table."""
    engine = create_engine(address, poolclass=NullPool)
    rows = []
    with engine.connect() as connection:
        for table in inspect(connection).get_table_names():
            found = connection.execute(text(f'SELECT * FROM "{table}"'))  # noqa: S608 - a name from the database
            rows += [f"{table} {tuple(row)}" for row in found]
    return _sha256(row.encode() for row in sorted(rows))


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
