"""The tables that novad keeps beside MLflow's own: publications, events, decisions, verdicts, answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Double,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
)
from sqlalchemy.exc import DatabaseError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from novad.errors import ServiceError
from novad.tracking.store import BUSY_SECONDS, Store, prepare_database

__all__ = [
    "ANSWERS",
    "DECISIONS",
    "EVENTS",
    "HEADS",
    "PUBLICATIONS",
    "SIGNATURES",
    "VERDICTS",
    "present_columns",
    "reading",
    "writing",
]

_METADATA = MetaData()

PUBLICATIONS = Table(
    "novad_publications",
    _METADATA,
    Column("line", String(63), primary_key=True),
    Column("output_digest", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("run_id", String(32), nullable=False),
    Column("published_at", String(32), nullable=False),
)

# The primary key is the compare-and-swap: of two writers of the same sequence number one is refused.
EVENTS = Table(
    "novad_events",
    _METADATA,
    Column("line", String(63), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("version", Integer),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String(32), nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
)

# The newest event of each line once more: removing the tail of a chain leaves a valid, shorter chain.
HEADS = Table(
    "novad_event_heads",
    _METADATA,
    Column("line", String(63), primary_key=True),
    Column("sequence", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
)

# Signatures of events, by who holds the key that signs; a log without one has none.
SIGNATURES = Table(
    "novad_event_signatures",
    _METADATA,
    Column("line", String(63), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("signature", String(128), nullable=False),
)

# One row per image and version that judged it; a service adds thousands a day, so every look-up is indexed.
DECISIONS = Table(
    "novad_decisions",
    _METADATA,
    Column("prediction_id", String(36), primary_key=True),
    Column("at", String(32), nullable=False, index=True),
    Column("line", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("detector_digest", String(64), nullable=False),
    Column("image_sha256", String(64), nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("familiarity", Double, nullable=False),
    Column("novelty", Double, nullable=False),
    Column("hybrid", Double, nullable=False),
    Column("p_value", Double, nullable=False),
    Column("decision", String(6), nullable=False),
    Column("nearest_image", Text, nullable=False),
    Column("nearest_sha256", String(64), nullable=False),
    Column("latency_ms", Double, nullable=False),
    Column("shadow", Boolean, nullable=False),
    # Newer than the table: a writer adds them to one that lacks them, and a reader does without.
    Column("brightness", Double),
    Column("contrast", Double),
    Column("sharpness", Double),
)

# What people said about decisions. Rows are only added: of several on one decision the highest number counts.
VERDICTS = Table(
    "novad_verdicts",
    _METADATA,
    Column("number", Integer, primary_key=True),
    Column("prediction_id", String(36), nullable=False, index=True),
    Column("image_sha256", String(64), nullable=False, index=True),
    Column("verdict", String(6), nullable=False),
    Column("defect_type", Text),
    Column("actor", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", String(32), nullable=False),
)

# Causes of a retraining that a training has answered.
ANSWERS = Table(
    "novad_answers",
    _METADATA,
    Column("line", String(63), primary_key=True),
    Column("cause", String(64), primary_key=True),
    Column("at", String(32), nullable=False),
)


@contextmanager
def reading(store: Store, *tables: Table) -> Iterator[Connection | None]:
    """A connection that sees one state; None when none of ``tables`` exists, and nothing is created.

    Raises:
        ServiceError: the database cannot be reached, or is damaged.
    """
    file = store.sqlite_file
    if file is not None and not file.is_file():
        yield None
        return
    with _connected(store, write=False) as connection:
        there = inspect(connection).has_table
        yield connection if any(there(table.name) for table in tables) else None


@contextmanager
def writing(store: Store) -> Iterator[Connection]:
    """A connection in one transaction, committed when the block ends without an error.

    Raises:
        ServiceError: the database cannot be reached, is damaged, or stays locked.
        sqlalchemy.exc.IntegrityError: a row of that key exists; the caller knows what that means.
    """
    prepare_database(store)
    with _connected(store, write=True) as connection:
        _create_tables(connection)
        with connection.begin():
            yield connection


def present_columns(connection: Connection, table: Table) -> list[Column[Any]]:
    """The columns of ``table`` that this database has: one that nobody wrote to since may lack new ones."""
    there = {each["name"] for each in inspect(connection).get_columns(table.name)}
    return [column for column in table.columns if column.name in there]


@contextmanager
def _connected(store: Store, *, write: bool) -> Iterator[Connection]:
    engine = _engine(store, write=write)
    try:
        with engine.connect() as connection:
            yield connection
    except IntegrityError:
        raise
    except DatabaseError as error:
        place = store.sqlite_file or store.database
        raise ServiceError(f"the tracking database at {place} cannot be used: {error.orig}") from error
    finally:
        engine.dispose()


def _engine(store: Store, *, write: bool) -> Engine:
    if store.sqlite_file is None:
        # A reader sees one state through all its statements, as it does in SQLite.
        level = "READ COMMITTED" if write else "REPEATABLE READ"
        return create_engine(store.database_uri, poolclass=NullPool, isolation_level=level)
    engine = create_engine(store.database_uri, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare)
    # A writer takes SQLite's write lock when its transaction begins: a reader that turns writer half-way
    # is refused at once, whatever the timeout.
    event.listen(engine, "begin", _begin_immediate if write else _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    # Bytes that are no text would hide every other row, those of the event log too that tell of tampering.
    connection.text_factory = _text


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _create_tables(connection: Connection) -> None:
    try:
        with connection.begin():
            _METADATA.create_all(connection)
            for index in DECISIONS.indexes:  # One that is newer than the table is not made with it.
                index.create(connection, checkfirst=True)
            for column in _missing_columns(connection):
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {DECISIONS.name} ADD COLUMN {column.name} {kind}")
    except SQLAlchemyError:
        # On PostgreSQL another process may create them between our look and our creation.
        with connection.begin():
            there = all(inspect(connection).has_table(name) for name in _METADATA.tables)
            if not there or _missing_columns(connection):
                raise


def _missing_columns(connection: Connection) -> list[Column[Any]]:
    present = {column.name for column in present_columns(connection, DECISIONS)}
    return [column for column in DECISIONS.columns if column.name not in present]
