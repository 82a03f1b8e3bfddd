"""A workspace whose five stages are real to DVC, Prefect and MLflow, and take no time: they copy files."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fake_line import REPOSITORY, make_workspace
from novad.config import Workspace
from novad.pipeline.prefect_home import prefect_api
from novad.tracking.digests import STAGES
from tables_once import tables_once

__all__ = [
    "MakeTiny",
    "empty_prefect",
    "make_tiny",
    "prefect_server",
    "prefect_tables",
    "running_prefect",
    "train_process",
    "wait_for",
]

MakeTiny = Callable[..., Workspace]

STAGE = '''\
"""Copies what a trained line leaves; obeys orders such as `memory_bank: refuse` in the line's input file."""

import os
import resource
import shutil
import sys
import time

from novad.errors import ConfigError, RefusedError
from novad.stages.runner import main, stage_output

STAGE = sys.argv.pop(1)
ERRORS = {"refuse": RefusedError("part-07.png is empty"), "wrong": ConfigError("params.yaml: lines: wrong"),
          "crash": ZeroDivisionError("no such luck")}


def run(workspace, line):
    told = (workspace.root / "input" / line).read_text()
    for order in told.split(";"):
        stage, _, what = order.strip().partition(": ")
        if stage == STAGE and what in ERRORS:
            raise ERRORS[what]
    with stage_output(workspace, line, STAGE) as folder:
        (workspace.root / f"started-{STAGE}-{line}").write_text(os.environ["OMP_NUM_THREADS"])
        while (workspace.root / f"hold-{STAGE}-{line}").exists():
            time.sleep(0.02)
        if (workspace.root / f"full-{STAGE}-{line}").exists():
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            (folder / "large").write_bytes(bytes(100_001))
        shutil.copytree(workspace.root / "template" / line / STAGE, folder, dirs_exist_ok=True)
        (folder / "input.txt").write_text(told)


main(run, STAGE)
'''


@pytest.fixture(scope="session")
def empty_prefect(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect's tables without a run: making them takes longer than all else that a first start does."""

    def make(workspace: Workspace) -> Path:
        with _started(workspace):
            return workspace.state / "prefect/0/prefect.db"

    return tables_once(tmp_path_factory, "empty-prefect.db", make)


@pytest.fixture(scope="session")
def running_prefect(
    tmp_path_factory: pytest.TempPathFactory, empty_prefect: Path
) -> Iterator[tuple[str, Path]]:
    """Address and database of a Prefect server that outlives the trainings, as in a plant."""
    workspace = Workspace(tmp_path_factory.mktemp("prefect"))
    [database] = prefect_tables(workspace, empty_prefect, "0")
    with _started(workspace) as url:
        yield url, database


@contextmanager
def _started(workspace: Workspace) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("PREFECT_API_URL", raising=False)
        with prefect_api(workspace, []):
            yield os.environ.pop("PREFECT_API_URL")


def prefect_tables(workspace: Workspace, empty: Path, *homes: str) -> list[Path]:
    """Put Prefect's tables where the workspace's servers of these names look for them; the databases."""
    databases = [workspace.state / "prefect" / home / "prefect.db" for home in homes]
    for each in databases:
        each.parent.mkdir(parents=True)
        shutil.copyfile(empty, each)
    return databases


@pytest.fixture
def prefect_server(running_prefect: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Train through the running server instead of starting one each time; its database."""
    url, database = running_prefect
    monkeypatch.setenv("PREFECT_API_URL", url)
    return database


@pytest.fixture
def make_tiny(
    own_store: None,
    tmp_path: Path,
    empty_database: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> MakeTiny:
    """Lines of the given names, untrained, beside an empty database."""
    monkeypatch.delenv("NOVAD_WORKSPACE", raising=False)
    if "prefect_server" not in request.fixturenames:
        monkeypatch.delenv("PREFECT_API_URL", raising=False)

    def make(*lines: str) -> Workspace:
        root = tmp_path / "tiny"
        workspace = make_workspace(root, *lines)
        (root / "artifacts").rename(root / "template")
        (root / "dvc.lock").unlink()
        (root / "flows").symlink_to(REPOSITORY / "flows")
        (root / "stage.py").write_text(STAGE)
        (root / "dvc.yaml").write_text("stages:\n" + "".join(map(_stage, STAGES, ("", *STAGES))))
        (root / ".dvc").mkdir()
        (root / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
        (root / "input").mkdir()
        for line in lines:
            (root / "input" / line).write_text("as usual")
            (root / "data" / line).mkdir(parents=True)
        workspace.state.mkdir()
        shutil.copyfile(empty_database, workspace.state / "mlflow.db")
        return workspace

    return make


def _stage(name: str, before: str) -> str:
    after = f"        - artifacts/${{key}}/{before}\n" if before else ""
    return (
        f"  {name}:\n    foreach: ${{lines}}\n    do:\n"
        f"      cmd: exec python stage.py {name} ${{key}}\n"
        f"      deps:\n        - input/${{key}}\n{after}"
        f"      outs:\n        - artifacts/${{key}}/{name}\n"
    )


TRAIN = """
import json, sys
from pathlib import Path
from novad.config import Workspace
from novad.errors import exit_code
from novad.garbage import spare_search
from novad.pipeline.train import train_lines
spare_search()
[result] = train_lines(Workspace(Path(sys.argv[1])), sys.argv[2:])
print(json.dumps({"version": result.version, "ran": result.ran, "error": str(result.error or "")}))
raise SystemExit(exit_code(result.error) if result.error else 0)
"""


def train_process(workspace: Workspace, line: str) -> "subprocess.Popen[str]":
    """Train one line in a process of its own, which prints its version, what ran and its error."""
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(workspace.root), line],
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Return as soon as ``condition`` holds, and fail when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
