"""Locks of lines: one holder, named; free again however the holder ends."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import Timeout

from novad.config import Workspace
from novad.errors import LineBusyError, exit_code
from novad.pipeline.locks import first_free, line_locks

HOLD = """
import sys
from pathlib import Path
from novad.config import Workspace
from novad.pipeline.locks import line_locks
with line_locks(Workspace(Path(sys.argv[1])), sys.argv[2:]):
    print("held", flush=True)
    sys.stdin.read()
"""


def _holder(root: Path, *lines: str) -> "subprocess.Popen[str]":
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), *lines],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_held_line_is_refused_with_its_holder_and_a_killed_holder_frees_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with _holder(tmp_path, "metal") as holder:
        told = f"metal: .*process {holder.pid} since 2"
        with pytest.raises(LineBusyError, match=told) as caught, line_locks(workspace, ["metal"]):
            pass
        assert exit_code(caught.value) == 1
        with line_locks(workspace, ["fabric"]):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with line_locks(workspace, ["metal", "metal"]):
            pass


def test_a_refusal_of_one_line_frees_the_others_of_the_same_call(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with _holder(tmp_path, "metal") as holder:
        with pytest.raises(LineBusyError), line_locks(workspace, ["board", "metal"]):
            pass
        with line_locks(workspace, ["board"]):
            pass
        holder.communicate("")


def test_waiting_lasts_until_the_line_is_free(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with _holder(tmp_path, "metal") as holder:
        threading.Timer(0.5, holder.kill).start()
        started = time.monotonic()
        with line_locks(workspace, ["metal"], wait=True):
            assert time.monotonic() - started >= 0.4


def test_runs_at_once_get_places_of_their_own_and_the_next_run_gets_the_first_again(tmp_path: Path) -> None:
    with first_free(tmp_path) as one, first_free(tmp_path) as two:
        assert [one.name, two.name] == ["0", "1"]
    with first_free(tmp_path) as again:
        assert again == one


def test_an_error_inside_a_place_is_not_taken_for_a_busy_one(tmp_path: Path) -> None:
    with pytest.raises(Timeout, match="of the work"), first_free(tmp_path):
        raise Timeout("of the work")
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
