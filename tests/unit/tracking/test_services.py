"""The note of what `novad up` runs counts while its writer lives, and only then."""

import subprocess
import sys
from pathlib import Path

import pytest

from novad.config import Workspace
from novad.tracking.services import RunningService, RunningServices, find_services, hold_services
from novad.tracking.store import locate

HOLD = """
import sys
from pathlib import Path
from novad.config import Workspace
from novad.tracking.services import RunningService, RunningServices, hold_services
with hold_services(Workspace(Path(sys.argv[1]))) as note:
    served = RunningService("mlflow", 7, "http://127.0.0.1:9", "http://127.0.0.1:9/health", "a.log")
    note(RunningServices(6, "today", (served,)))
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.usefixtures("own_store")
def test_a_note_counts_until_its_writer_dies_whatever_stays_on_disk(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    embedded = locate(workspace)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        found = find_services(workspace)
        assert found is not None
        assert (found.pid, found.url("mlflow"), found.url("prefect")) == (6, "http://127.0.0.1:9", None)
        # Runs go through the server, novad's own tables and the files stay where they are.
        served = locate(workspace)
        assert (served.tracking_uri, served.database_uri) == ("http://127.0.0.1:9", embedded.database_uri)
        assert served.artifact_root == embedded.artifact_root
        with hold_services(workspace) as refused:
            assert refused is None
        assert find_services(workspace) == found
        holder.kill()
        holder.wait()
    assert (tmp_path / ".novad/up.json").is_file()
    assert find_services(workspace) is None
    assert locate(workspace) == embedded


@pytest.mark.usefixtures("own_store")
def test_what_the_environment_names_goes_before_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    served = RunningService("mlflow", 7, "http://127.0.0.1:9", "http://127.0.0.1:9/health", "a.log")
    with hold_services(workspace) as note:
        assert note is not None
        note(RunningServices(6, "today", (served,)))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////named.db")
        assert locate(workspace).tracking_uri == "sqlite:////named.db"


def test_readers_do_not_take_each_other_for_the_holder(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with hold_services(workspace) as note:
        assert note is not None
        note(RunningServices(6, "today"))
    (tmp_path / ".novad/up.json").write_text('{"pid": 6, "since": "today", "services": []}')
    reader = (
        "import fcntl, sys, time; fcntl.flock(0, fcntl.LOCK_SH); print('reads', flush=True); time.sleep(60)"
    )
    with (
        (tmp_path / ".novad/up.lock").open() as lock,
        subprocess.Popen(
            [sys.executable, "-c", reader],
            stdin=lock, stdout=subprocess.PIPE, text=True,
        ) as other,
    ):  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "reads\n"
        assert find_services(workspace) is None
        other.kill()


def test_a_note_that_is_only_half_there_is_none(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with hold_services(workspace) as note:
        assert note is not None
        assert find_services(workspace) is None
        (tmp_path / ".novad/up.json").write_text('{"pid": 6')
        assert find_services(workspace) is None
    assert not (tmp_path / ".novad/up.json").exists()
