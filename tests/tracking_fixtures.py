"""Workspaces whose lines look trained, with an MLflow database that is there already."""

import functools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fake_line import make_workspace, write_outputs
from novad.config import Workspace
from novad.tracking import LoggedDecision
from tables_once import tables_once

__all__ = [
    "Kept",
    "empty_database",
    "keep",
    "logged_decision",
    "make_tracked",
    "own_store",
    "publish_versions",
    "tracked",
    "versions_once",
    "with_versions",
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

    def make(workspace: Workspace) -> Path:
        from novad.tracking.store import open_client

        with _embedded():
            open_client(workspace)
        return workspace.state / "mlflow.db"

    return tables_once(tmp_path_factory, "empty-mlflow.db", make)


@pytest.fixture
def workspace(own_store: None, tmp_path: Path) -> Workspace:
    """Line `metal`, trained, with no database yet."""
    return make_workspace(tmp_path, "metal")


@pytest.fixture
def make_tracked(own_store: None, tmp_path: Path, empty_database: Path) -> Callable[..., Workspace]:
    """Trained lines of the given names, beside an empty database."""
    return lambda *lines: _beside(empty_database, tmp_path, *lines)


def _beside(empty_database: Path, root: Path, *lines: str) -> Workspace:
    workspace = make_workspace(root, *lines)
    workspace.state.mkdir()
    shutil.copyfile(empty_database, workspace.state / "mlflow.db")
    return workspace


@pytest.fixture
def tracked(make_tracked: Callable[..., Workspace]) -> Workspace:
    """Line `metal`, trained, beside an empty database."""
    return make_tracked("metal")


class Kept:
    """A workspace that every test finds as it was made, at one place: the records name absolute paths.

    Args:
        root: where the workspace is.
        aside: an empty folder for what is put back.
    """

    def __init__(self, root: Path, aside: Path) -> None:
        self.workspace = Workspace(root)
        self._database, self._files, self._rows = root / ".novad/mlflow.db", aside / "files", aside / "rows"
        # Whoever opens and closes SQLite's files takes its locks from the connections of this process.
        not_rows = shutil.ignore_patterns(f"{self._database.name}*")
        shutil.copytree(root, self._files, symlinks=True, ignore=not_rows)
        _copy_rows(self._database, self._rows)

    def put_back(self) -> Workspace:
        """The workspace with the files and rows that it was made with; MLflow may be connected to it."""
        for path in [*self.workspace.root.iterdir(), *self.workspace.state.iterdir()]:
            if path == self.workspace.state or path.name.startswith(self._database.name):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        shutil.copytree(self._files, self.workspace.root, symlinks=True, dirs_exist_ok=True)
        _copy_rows(self._rows, self._database)
        return self.workspace


def _copy_rows(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


@contextmanager
def _embedded() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for name in ("MLFLOW_TRACKING_URI", "NOVAD_DATABASE_URI"):
            patched.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def keep(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Callable[..., Kept]:
    """Makes line `metal` with as many versions as asked for, none of them champion, and keeps it."""

    def make(count: int, then: Callable[[Workspace], object] = lambda _: None) -> Kept:
        with _embedded():
            workspace = _beside(empty_database, tmp_path_factory.mktemp("kept"), "metal")
            publish_versions(workspace, "metal", count)
            then(workspace)
        return Kept(workspace.root, tmp_path_factory.mktemp("aside"))

    return make


@pytest.fixture(scope="session")
def versions_once(keep: Callable[..., Kept]) -> Callable[[int], Kept]:
    return functools.cache(keep)


@pytest.fixture
def with_versions(own_store: None, versions_once: Callable[[int], Kept]) -> Callable[[int], Workspace]:
    """Line `metal` with as many versions as asked for, none of them champion."""
    return lambda count: versions_once(count).put_back()


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
