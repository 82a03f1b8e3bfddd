"""Where MLflow keeps runs and models, and a client for it that never hangs and never phones home."""

import logging
import os
import sqlite3
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from novad.config import Workspace
from novad.config.environment import environment_kept
from novad.errors import ConfigError, ServiceError
from novad.tracking.services import find_services

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = [
    "BUSY_SECONDS",
    "Store",
    "create_store",
    "locate",
    "open_client",
    "prepare_database",
    "probe_artifacts",
    "service_errors",
    "storage_errors",
]

BUSY_SECONDS = 20.0
_PROBE_SECONDS = 5.0
_CREATION_SECONDS = 60.0
# MLflow's address and the environment belong to the process; a flow publishes several lines in threads.
_process_wide = Lock()
# What MLflow writes into the environment: `locate` would take it for the user's own choice.
_MLFLOW_WRITES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")

# MLflow's and S3's own defaults wait for minutes when a server is down. Values that the user set are kept.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # Asked again after its answer was lost, MLflow makes a second run or version.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "AWS_RETRY_MODE": "standard",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Store:
    """Addresses of the tracking data: the embedded default, or what ``MLFLOW_TRACKING_URI`` names."""

    tracking_uri: str
    database_uri: str
    """SQLAlchemy address of the tables that novad keeps: beside MLflow's own wherever those are reachable."""
    artifact_root: str | None
    """Address of the artifacts, a folder here or ``s3://``; None when the server decides."""

    @property
    def served(self) -> bool:
        """True when runs go through an MLflow server, so that its tables cannot be read directly."""
        return urlsplit(self.tracking_uri).scheme in {"http", "https"}

    @property
    def uri(self) -> str:
        """The address to show to people and to hand to MLflow's UI, without user name and password."""
        return _public(self.tracking_uri)

    @property
    def database(self) -> str:
        """The address of novad's own tables, as :attr:`uri`."""
        return _public(self.database_uri)

    @property
    def sqlite_file(self) -> Path | None:
        """The database file, when it is SQLite."""
        prefix = "sqlite:///"
        return Path(self.database_uri[len(prefix) :]) if self.database_uri.startswith(prefix) else None


def locate(workspace: Workspace) -> Store:
    """The store that ``workspace`` uses; nothing is opened or created.

    While ``novad up`` runs, runs go through its server, which is the one writer of MLflow's tables.
    ``MLFLOW_TRACKING_URI`` replaces the embedded SQLite store. A database address holds novad's tables
    too, and ``MLFLOW_DEFAULT_ARTIFACT_ROOT`` may say where artifacts go; beside a server,
    ``NOVAD_DATABASE_URI`` must say where the shared event log lies.

    Raises:
        ConfigError: an address that MLflow no longer serves, or a server without ``NOVAD_DATABASE_URI``.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    artifacts = (workspace.state / "mlartifacts").as_uri()
    if not named:
        embedded = f"sqlite:///{workspace.state / 'mlflow.db'}"
        running = find_services(workspace)
        return Store((running and running.url("mlflow")) or embedded, embedded, artifacts)
    scheme = urlsplit(named).scheme
    if scheme in {"http", "https"}:
        database = os.environ.get("NOVAD_DATABASE_URI", "").strip()
        if not database:
            raise ConfigError(
                "NOVAD_DATABASE_URI: must be set beside an http MLFLOW_TRACKING_URI, for the event log that "
                "everyone who uses this server shares (for example postgresql://...)"
            )
        return Store(named, database, None)
    if scheme.split("+")[0] not in {"sqlite", "postgresql", "mysql", "mssql"}:
        raise ConfigError(
            "MLFLOW_TRACKING_URI: must be an http(s), sqlite or postgresql address; "
            "MLflow has given up its file store"
        )
    database = os.environ.get("NOVAD_DATABASE_URI", "").strip() or named
    return Store(named, database, os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT", "").strip() or artifacts)


def open_client(workspace: Workspace) -> "MlflowClient":
    """A client of the workspace's store, which becomes MLflow's address in this process.

    The embedded SQLite file is created in WAL mode, so that readers and a writer do not block each other.

    Raises:
        ConfigError: the addresses are wrong.
        ServiceError: the store cannot be reached or opened.
    """
    store = locate(workspace)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if store.served:
        _probe("MLflow", store.tracking_uri, "/health")
    elif urlsplit(store.tracking_uri).scheme.split("+")[0] != "sqlite":
        _probe_database(store.tracking_uri)
    # Importing MLflow takes about three seconds: only those pay who need it.
    import mlflow
    from mlflow.exceptions import MlflowException

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Its tracebacks repeat what the errors say that it raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    try:
        _create_embedded(workspace, store)
        with _process_wide, environment_kept(*_MLFLOW_WRITES):
            mlflow.set_tracking_uri(store.tracking_uri)
            mlflow.set_registry_uri(store.tracking_uri)
        client = mlflow.MlflowClient(store.tracking_uri, store.tracking_uri)
        client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise ServiceError(f"MLflow at {store.uri} cannot be opened: {error}") from error
    return client


def create_store(workspace: Workspace) -> None:
    """Make the embedded store, where that is the workspace's and is not there yet.

    Raises:
        ServiceError: it cannot be made.
    """
    file = locate(workspace).sqlite_file
    if file is not None and not file.exists():
        open_client(workspace)


def probe_artifacts(address: str) -> None:
    """See whether the S3 server behind ``address`` answers, for whom MLflow's client would wait for minutes.

    Raises:
        ServiceError: it does not.
    """
    endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL", "").strip()
    if endpoint and urlsplit(address).scheme == "s3":
        _probe("S3", endpoint)


def storage_errors() -> tuple[type[Exception], ...]:
    """What MLflow raises when it cannot keep or fetch something; errors of S3's client come through."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException

    return MlflowException, Boto3Error, BotoCoreError, ClientError, OSError


@contextmanager
def service_errors(failed: str) -> Iterator[None]:
    """What MLflow and its storage raise inside becomes one error, which begins with what ``failed``.

    Raises:
        ServiceError: for any of :func:`storage_errors`.
    """
    try:
        yield
    except storage_errors() as error:
        raise ServiceError(f"{failed}: {error}") from error


def prepare_database(store: Store) -> None:
    """Create the folder of an SQLite store and switch the file to WAL, which the file remembers.

    Raises:
        ServiceError: the file cannot be opened or stays locked.
    """
    file = store.sqlite_file
    if file is None:
        return
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(file, timeout=BUSY_SECONDS)
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            finally:
                connection.close()
            return
        except (sqlite3.Error, OSError) as error:
            # The switch needs the file alone for a moment and does not wait for it by itself.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise ServiceError(f"{file}: the tracking database cannot be opened: {error}") from error
            time.sleep(0.05)


def _create_embedded(workspace: Workspace, store: Store) -> None:
    """Make the embedded database with all of MLflow's tables, whole or not at all.

    MLflow builds its tables in some fifty steps; a kill in between, or two processes at it, leave a file
    that no MLflow opens again. So they are built in a file aside, by one process, and moved into place.
    """
    file = store.sqlite_file
    if file is None or store.artifact_root is None:
        return
    locks = workspace.state / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(locks / "database.lock", timeout=_CREATION_SECONDS):
            if not file.exists():
                for left_over in file.parent.glob(f"{file.name}.new*"):
                    left_over.unlink()
                fresh = file.with_name(f"{file.name}.new")
                _create_tables(fresh, store.artifact_root)
                fresh.rename(file)
    except Timeout as error:
        raise ServiceError(f"{file}: another process has been creating this database for too long") from error
    prepare_database(store)


def _create_tables(file: Path, artifact_root: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    made = SqlAlchemyStore(f"sqlite:///{file}", artifact_root)  # type: ignore[no-untyped-call]
    made.engine.dispose()


def _probe(service: str, uri: str, path: str = "/") -> None:
    address = uri.rstrip("/") + path
    try:
        with urllib.request.urlopen(address, timeout=_PROBE_SECONDS):  # noqa: S310 - http(s), checked by locate
            return
    except (OSError, ValueError) as error:
        if not _is_answer(error):
            raise ServiceError(f"{service} at {_public(uri)} does not answer: {error}") from error


def _probe_database(uri: str) -> None:
    """MLflow would try for two minutes to open a database that is down."""
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import DBAPIError

    try:
        create_engine(uri, poolclass=NullPool).connect().close()
    except DBAPIError as error:
        raise ServiceError(f"the tracking database at {_public(uri)} cannot be used: {error.orig}") from error


def _is_answer(error: Exception) -> bool:
    """Whether somebody is there; whether it lets us in, or is trusted, is for the client to find out."""
    reason = getattr(error, "reason", None)
    return isinstance(error, urllib.error.HTTPError) or isinstance(reason, ssl.SSLCertVerificationError)


def _public(uri: str) -> str:
    """The address without user name and password."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
