"""Which store is used, and that a missing one is an error at once and not after minutes."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from novad.config import Workspace
from novad.errors import ConfigError, ServiceError
from novad.tracking.store import locate, open_client


def test_the_embedded_store_lies_in_the_workspace_and_uses_wal(workspace: Workspace) -> None:
    store = locate(workspace)
    assert not workspace.state.exists()
    assert store.sqlite_file == workspace.state / "mlflow.db"
    assert store.artifact_root == workspace.state / "mlartifacts"
    open_client(workspace)
    with sqlite3.connect(workspace.state / "mlflow.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_opening_one_workspace_does_not_redirect_the_next(tracked: Workspace, tmp_path: Path) -> None:
    open_client(tracked)
    other = Workspace(tmp_path / "other")
    assert locate(other).sqlite_file == other.state / "mlflow.db"


def test_telemetry_is_off_once_the_store_is_open(tracked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    open_client(tracked)
    from mlflow.telemetry.utils import is_telemetry_disabled

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert is_telemetry_disabled()


def test_a_server_that_is_down_is_reported_in_seconds_without_its_password(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:hunter2@127.0.0.1:{port}")
    monkeypatch.setenv("NOVAD_DATABASE_URI", f"sqlite:///{workspace.root / 'events.db'}")
    started = time.monotonic()
    with pytest.raises(ServiceError, match=f"127.0.0.1:{port} does not answer") as caught:
        open_client(workspace)
    assert time.monotonic() - started < 10
    assert "hunter2" not in str(caught.value)


def test_the_address_that_is_shown_holds_no_password(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locate(workspace).uri == f"sqlite:///{workspace.state / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:hunter2@db.example.org/mlflow")
    assert locate(workspace).uri == "postgresql://db.example.org/mlflow"


def test_a_server_needs_a_place_for_the_shared_event_log(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="NOVAD_DATABASE_URI"):
        locate(workspace)


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "databricks"])
def test_stores_without_a_database_are_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        locate(workspace)


def test_a_file_that_is_no_database_is_a_service_error(workspace: Workspace) -> None:
    workspace.state.mkdir()
    (workspace.state / "mlflow.db").write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(ServiceError, match=r"mlflow\.db"):
        open_client(workspace)


def test_looking_up_a_publication_does_not_load_mlflow(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from novad import tracking; from novad.config import Workspace\n"
        "assert tracking.published_version(Workspace(Path(sys.argv[1])), 'metal', '0' * 64) is None\n"
        "print([name for name in ('mlflow', 'torch', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
