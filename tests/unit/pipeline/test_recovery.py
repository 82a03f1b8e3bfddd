"""What a killed DVC leaves behind is mended, and what a living one holds is left alone."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from novad.config import Workspace
from novad.pipeline.flow_files import load_flow
from novad.pipeline.graph import recorded_digests, stale_stages
from novad.pipeline.recovery import mend
from novad.pipeline.reproduce import reproduce
from tiny_pipeline import MakeTiny


@pytest.fixture
def tiny(make_tiny: MakeTiny) -> Workspace:
    workspace = make_tiny("metal")
    (workspace.root / ".dvc/tmp").mkdir()
    return workspace


def _claims(workspace: Workspace, pid: int) -> str:
    claim = {"pid": pid, "cmd": "dvc repro"}
    path = str(workspace.artifacts("metal", "validate"))
    return json.dumps({"write": {path: claim}, "read": {str(workspace.root / "input/metal"): [claim]}})


def test_a_claim_of_a_zombie_is_dropped(tiny: Workspace) -> None:
    zombie = subprocess.Popen([sys.executable, "-c", "pass", "dvc"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    rwlock = tiny.root / ".dvc/tmp/rwlock"
    rwlock.write_text(_claims(tiny, zombie.pid))
    assert [text for text in mend(tiny) if "dead processes" in text]
    assert json.loads(rwlock.read_text()) == {"write": {}, "read": {}}
    zombie.wait()
    assert mend(tiny) == []


def test_a_claim_whose_number_another_program_has_got_is_dropped(tiny: Workspace) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (tiny.root / ".dvc/tmp/rwlock").write_text(_claims(tiny, stranger.pid))
        assert mend(tiny)
        assert reproduce(tiny, "validate@metal")


def test_a_claim_of_a_living_dvc_is_kept(tiny: Workspace) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", "dvc"], stdin=subprocess.PIPE) as living:
        text = _claims(tiny, living.pid)
        (tiny.root / ".dvc/tmp/rwlock").write_text(text)
        assert mend(tiny) == []
        assert (tiny.root / ".dvc/tmp/rwlock").read_text() == text


@pytest.mark.parametrize("left", ["", '{"write": {"/a'])
def test_half_a_file_of_claims_is_removed(tiny: Workspace, left: str) -> None:
    (tiny.root / ".dvc/tmp/rwlock").write_text(left)
    assert mend(tiny)
    assert reproduce(tiny, "validate@metal")


def test_half_a_lock_file_goes_aside_and_results_come_back_without_running(tiny: Workspace) -> None:
    assert reproduce(tiny, "validate@metal")
    lock = tiny.root / "dvc.lock"
    whole = lock.read_bytes()
    lock.write_bytes(whole[: whole.index(b"deps")] + b"deps: [")
    assert [text for text in mend(tiny) if "dvc.lock was damaged" in text]
    assert [path.read_bytes()[-1:] for path in tiny.state.glob("dvc.lock.damaged-*")] == [b"["]
    assert "validate@metal" in stale_stages(tiny, ["metal"])
    assert not reproduce(tiny, "validate@metal")
    assert "validate@metal" not in stale_stages(tiny, ["metal"])


def test_a_sound_workspace_is_left_as_it_is(tiny: Workspace) -> None:
    assert reproduce(tiny, "validate@metal")
    before = (tiny.root / "dvc.lock").read_bytes(), (tiny.root / ".dvc/tmp/rwlock").read_bytes()
    assert mend(tiny) == []
    assert before == ((tiny.root / "dvc.lock").read_bytes(), (tiny.root / ".dvc/tmp/rwlock").read_bytes())


WRITES_IN_PLACE = """
import sys, time
from pathlib import Path
from novad.config import Workspace
from novad.pipeline.graph import open_repository
workspace = Workspace(Path(sys.argv[1]))
path = workspace.root / "dvc.lock"
with open_repository(workspace):
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    print("half", flush=True)
    time.sleep(2)
    path.write_text(whole)
"""


def _handed_to_publish(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """How the training's flow lets ``publish`` read what DVC recorded."""
    handed: list[Any] = []
    flow = load_flow(workspace, "train")
    monkeypatch.setattr(flow, "close_stale_runs", lambda *_: None)
    monkeypatch.setattr(flow, "publish", lambda *given: handed.extend(given))
    flow.publish_line.fn(workspace.root, "metal", None, "by hand")
    return handed[-1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("by", ["hand", "flow"])
def test_what_is_recorded_is_read_whole_while_another_line_writes_it(
    tiny: Workspace, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reproduce(tiny, "validate@metal")
    read = recorded_digests if by == "hand" else _handed_to_publish(tiny, monkeypatch)
    whole = recorded_digests(tiny, "metal")
    assert set(whole) == {"validate"}
    program = [sys.executable, "-c", WRITES_IN_PLACE, str(tiny.root)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
        assert read(tiny, "metal") == whole
    assert writer.returncode == 0
