"""Which results are registered already: a look-up that does not need to load MLflow."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, insert, inspect, select, text

from novad.config import Workspace
from novad.tracking.database import PUBLICATIONS, reading, writing
from novad.tracking.store import Store, locate

__all__ = ["Publication", "publications", "published_version", "record_publication"]


@dataclass(frozen=True)
class Publication:
    """One registered result."""

    line: str
    output_digest: str
    version: int
    run_id: str
    published_at: str
    """UTC, ISO 8601."""


def published_version(workspace: Workspace, line: str, output_digest: str) -> int | None:
    """Version under which this result is registered, or None when `publish` has something to do.

    None also while a killed publication of the line still claims to run, or when its version was deleted.

    Raises:
        ServiceError: the database cannot be reached.
    """
    store = locate(workspace)
    with reading(store, PUBLICATIONS) as connection:
        if connection is None:
            return None
        row = connection.execute(
            select(PUBLICATIONS).where(
                PUBLICATIONS.c.line == line, PUBLICATIONS.c.output_digest == output_digest
            )
        ).first()
        if row is None or not _agrees(store, connection, line, row.version):
            return None
        return int(row.version)


def publications(workspace: Workspace, line: str | None = None) -> list[Publication]:
    """Every registered result, of one line or of all, oldest version first.

    Raises:
        ServiceError: the database cannot be reached.
    """
    with reading(locate(workspace), PUBLICATIONS) as connection:
        if connection is None:
            return []
        query = select(PUBLICATIONS).order_by(PUBLICATIONS.c.line, PUBLICATIONS.c.version)
        if line is not None:
            query = query.where(PUBLICATIONS.c.line == line)
        return [Publication(**row._mapping) for row in connection.execute(query)]


def record_publication(
    workspace: Workspace, line: str, output_digest: str, version: int, run_id: str
) -> None:
    """Remember that a result is registered: the last act of publishing, so that it means `complete`.

    Raises:
        ServiceError: the database cannot be reached.
    """
    with writing(locate(workspace)) as connection:
        connection.execute(
            delete(PUBLICATIONS).where(
                PUBLICATIONS.c.line == line, PUBLICATIONS.c.output_digest == output_digest
            )
        )
        connection.execute(
            insert(PUBLICATIONS).values(
                line=line,
                output_digest=output_digest,
                version=version,
                run_id=run_id,
                published_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )


def _agrees(store: Store, connection: Connection, line: str, version: int) -> bool:
    """Whether MLflow's own tables, where they lie beside ours, still hold the version and no open run."""
    if not inspect(connection).has_table("model_versions"):
        return store.database_uri != store.tracking_uri
    held = connection.execute(
        text("SELECT current_stage FROM model_versions WHERE name = :line AND version = :version"),
        {"line": line, "version": version},
    ).scalar()
    open_runs = connection.execute(
        text(
            "SELECT count(*) FROM runs JOIN experiments ON runs.experiment_id = experiments.experiment_id "
            "WHERE experiments.name = :line AND runs.status = 'RUNNING' AND runs.lifecycle_stage = 'active'"
        ),
        {"line": line},
    ).scalar()
    return held is not None and held != "Deleted_Internal" and not open_runs
