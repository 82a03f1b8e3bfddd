"""A disk without room: the error names the place, nothing half-written counts, and with room all goes on.

A limit on the size of files stands in for the disk: the real writes of the real libraries fail, as any user.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from unittest.mock import Mock

import pytest

from novad.config import Workspace
from novad.config.whole_file import write_whole
from novad.errors import ConfigError
from novad.pipeline.graph import stale_stages
from novad.pipeline.reproduce import reproduce
from novad.tracking import (
    check,
    close_stale_runs,
    decisions_on,
    log_decisions,
    promote,
    publications,
    publish,
    verify,
)
from novad.tracking.store import locate
from state_digest import file_digests
from tiny_pipeline import MakeTiny
from tracking_fixtures import logged_decision

STAGE = """
import resource
import numpy
from safetensors.numpy import save_file
from novad.stages.runner import main, stage_output

def run(workspace, line):
    with stage_output(workspace, line, "memory_bank") as folder:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        save_file({"bank": numpy.zeros(1000)}, folder / "bank.safetensors")

main(run, "memory_bank")
"""

RECORD = """
import resource, sys
from pathlib import Path
import mlflow
sys.path.insert(0, sys.argv[2])
from novad.config import Workspace
from novad.errors import NovadError, exit_code
from novad.tracking import log_decisions, promote, publish
from tracking_fixtures import logged_decision

workspace = Workspace(Path(sys.argv[1]))
many = [logged_decision(prediction_id=f"many {number}") for number in range(3000)]
for limit, act in [
    (1000, lambda: log_decisions(workspace, many)),
    (1000, lambda: promote(workspace, "metal", 1, "Ann", "first")),
    (1000, lambda: publish(workspace, "fabric")),
    (900_000, lambda: publish(workspace, "fabric")),
]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        act()
        print("done")
    except NovadError as error:
        print(exit_code(error), " ".join(str(error).split()))
"""


def test_a_stage_without_room_leaves_nothing_and_the_stages_before_it_stay_done(make_tiny: MakeTiny) -> None:
    workspace = make_tiny("metal")
    assert reproduce(workspace, "validate@metal")
    done = file_digests(workspace.root, "artifacts")
    full = workspace.root / "full-memory_bank-metal"
    full.touch()
    output = workspace.artifacts("metal", "memory_bank")
    with pytest.raises(ConfigError, match=rf"memory_bank: {output}: was not written: .*File too large"):
        reproduce(workspace, "memory_bank@metal")
    assert file_digests(workspace.root, "artifacts") == done
    assert "memory_bank@metal" in stale_stages(workspace, ["metal"])
    full.unlink()
    assert reproduce(workspace, "memory_bank@metal")
    assert "memory_bank@metal" not in stale_stages(workspace, ["metal"])


def test_a_tensor_file_without_room_is_told_by_the_output_of_its_stage(workspace: Workspace) -> None:
    output = workspace.artifacts("metal", "memory_bank")
    before = file_digests(workspace.root, "artifacts")
    done = subprocess.run(
        [sys.executable, "-c", STAGE, "metal"],
        env={**os.environ, "NOVAD_WORKSPACE": str(workspace.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"memory_bank: {output}: was not written: " in done.stderr
    assert file_digests(workspace.root, "artifacts") == before


def test_what_cannot_be_recorded_changes_nothing_and_is_recorded_once_there_is_room(
    make_tracked: Callable[..., Workspace],
) -> None:
    workspace = make_tracked("metal", "fabric")
    publish(workspace, "metal")
    (workspace.artifacts("fabric", "evaluate") / "heatmaps/large.png").write_bytes(os.urandom(1_000_000))
    database = str(locate(workspace).sqlite_file)
    outputs = file_digests(workspace.root, "artifacts")
    command = [sys.executable, "-c", RECORD, str(workspace.root), str(Path(__file__).parents[1])]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [each[:2] for each in told] == ["3 "] * len(told)
    assert all(database in each for each in told)
    assert "heatmaps/large.png" in told[3]
    assert file_digests(workspace.root, "artifacts") == outputs
    assert verify(workspace) == []
    assert decisions_on(workspace, "ab" * 32) == []
    assert publications(workspace, "fabric") == []
    assert close_stale_runs(workspace, "fabric") == []

    log_decisions(workspace, [logged_decision()])
    assert len(decisions_on(workspace, "ab" * 32)) == 1
    assert promote(workspace, "metal", 1, "Ann", "first").sequence == 1
    assert publish(workspace, "fabric").version == 1
    assert check(workspace, "fabric").problems == check(workspace, "metal").problems == ()
    assert file_digests(workspace.root, "artifacts") == outputs


def test_a_file_without_room_keeps_what_it_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = tmp_path / "params.yaml"
    write_whole(params, b"before")
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", Mock(side_effect=OSError(28, "No space left on device")))
        with pytest.raises(ConfigError, match=rf"{params}: cannot be written: No space left"):
            write_whole(params, b"after")
    assert file_digests(tmp_path, ".") == {"params.yaml": sha256(b"before").hexdigest()}
    assert params.stat().st_mode & 0o777 == 0o644
    write_whole(params, b"after", mode=0o600)
    assert (params.read_bytes(), params.stat().st_mode & 0o777) == (b"after", 0o600)
    write_whole(params, b"later")
    assert (params.read_bytes(), params.stat().st_mode & 0o777) == (b"later", 0o600)
