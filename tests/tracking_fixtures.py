"""Workspaces whose lines look trained, with an MLflow database that is there already."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from fake_line import make_workspace
from novad.config import Workspace

__all__ = ["empty_database", "make_tracked", "own_store", "tracked", "workspace"]


@pytest.fixture
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded store, whatever the environment of the test run says."""
    for name in ("MLFLOW_TRACKING_URI", "NOVAD_DATABASE_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables without a run: making them takes seconds, copying them nothing."""
    from novad.tracking.store import open_client

    workspace = Workspace(tmp_path_factory.mktemp("empty"))
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("MLFLOW_TRACKING_URI", raising=False)
        open_client(workspace)
    whole = workspace.root / "whole.db"
    with sqlite3.connect(workspace.state / "mlflow.db") as connection:
        connection.execute("VACUUM INTO ?", (str(whole),))
    return whole


@pytest.fixture
def workspace(own_store: None, tmp_path: Path) -> Workspace:
    """Line `metal`, trained, with no database yet."""
    return make_workspace(tmp_path, "metal")


@pytest.fixture
def make_tracked(own_store: None, tmp_path: Path, empty_database: Path) -> Callable[..., Workspace]:
    """Trained lines of the given names, beside an empty database."""

    def make(*lines: str) -> Workspace:
        workspace = make_workspace(tmp_path, *lines)
        workspace.state.mkdir()
        shutil.copyfile(empty_database, workspace.state / "mlflow.db")
        return workspace

    return make


@pytest.fixture
def tracked(make_tracked: Callable[..., Workspace]) -> Workspace:
    """Line `metal`, trained, beside an empty database."""
    return make_tracked("metal")
