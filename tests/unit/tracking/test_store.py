"""Which store is used, and that a missing one is an error at once and not after minutes."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from email.message import Message
from pathlib import Path
from ssl import SSLCertVerificationError
from unittest.mock import Mock
from urllib.error import HTTPError, URLError

import pytest

from novad.config import Workspace
from novad.errors import ConfigError, ServiceError
from novad.tracking import store
from novad.tracking.store import locate, open_client


def test_the_embedded_store_lies_in_the_workspace_and_uses_wal(workspace: Workspace) -> None:
    found = locate(workspace)
    assert not workspace.state.exists()
    assert found.sqlite_file == workspace.state / "mlflow.db"
    assert found.artifact_root == (workspace.state / "mlartifacts").as_uri()
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


def test_a_database_that_is_down_is_reported_at_once_without_its_password(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = Mock()
    monkeypatch.setattr("time.sleep", waited)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://ann:hunter2@/mlflow?host={workspace.root}")
    with pytest.raises(ServiceError, match="tracking database at postgresql:/") as caught:
        open_client(workspace)
    assert "hunter2" not in str(caught.value)
    waited.assert_not_called()


def test_an_s3_server_that_hangs_is_reported_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        store.probe_artifacts("file:///somewhere")
        store.probe_artifacts("mlflow-artifacts:/1")
        with pytest.raises(ServiceError, match=r"S3 at http://127\.0\.0\.1:\d+ does not answer"):
            store.probe_artifacts("s3://bucket/novad")
        monkeypatch.delenv("MLFLOW_S3_ENDPOINT_URL")
        store.probe_artifacts("s3://bucket/novad")


@pytest.mark.parametrize(
    "answer",
    [
        HTTPError("https://s3", 403, "Forbidden", Message(), None),
        URLError(SSLCertVerificationError("self-signed certificate")),
    ],
)
def test_what_refuses_or_is_not_trusted_is_there(monkeypatch: pytest.MonkeyPatch, answer: OSError) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "https://s3.example.org")
    monkeypatch.setattr("urllib.request.urlopen", Mock(side_effect=answer))
    store.probe_artifacts("s3://bucket/novad")


def test_the_address_that_is_shown_holds_no_password(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locate(workspace).uri == f"sqlite:///{workspace.state / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://user:hunter2@db.example.org/mlflow")
    assert locate(workspace).uri == "postgresql://db.example.org/mlflow"


def test_artifacts_go_where_a_database_is_told_to_have_them(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = (workspace.state / "mlartifacts").as_uri()
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://plant/novad")
    monkeypatch.setenv("NOVAD_DATABASE_URI", "postgresql://db.example.org/mlflow")
    assert locate(workspace).artifact_root == local
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert locate(workspace).artifact_root is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://db.example.org/mlflow")
    assert locate(workspace).artifact_root == "s3://plant/novad"
    monkeypatch.delenv("MLFLOW_DEFAULT_ARTIFACT_ROOT")
    assert locate(workspace).artifact_root == local


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
