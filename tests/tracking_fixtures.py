"""Workspaces whose lines look trained, with an MLflow database that is there already."""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fake_line import make_workspace, write_outputs
from novad.config import Workspace
from novad.tracking import LoggedDecision

__all__ = [
    "empty_database",
    "logged_decision",
    "make_tracked",
    "own_store",
    "publish_versions",
    "tracked",
    "workspace",
]


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


def logged_decision(**changes: object) -> LoggedDecision:
    """A decision on the first version of `metal`, but for ``changes``."""
    decision = LoggedDecision(
        prediction_id="11111111-1111-4111-8111-111111111111",
        at="2026-11-24T14:00:00.000000+00:00",
        line="metal",
        version=1,
        detector_digest="ef" * 32,
        image_sha256="ab" * 32,
        source="a.png",
        familiarity=0.0,
        novelty=0.0,
        hybrid=0.0,
        p_value=1.0,
        decision="PASS",
        nearest_image="good/0.png",
        nearest_sha256="0" * 64,
        latency_ms=1.0,
        shadow=False,
    )
    return replace(decision, **changes)


def publish_versions(workspace: Workspace, line: str, count: int) -> None:
    """Versions 1 to ``count`` of a line, each a training of its own and better than the one before."""
    from novad.tracking import publish

    for seed in range(count):
        write_outputs(workspace, line, auroc=0.93 + seed / 100, seed=seed)
        publish(workspace, line)
