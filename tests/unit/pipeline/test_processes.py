"""Children of a training end with it, and find the interpreter that runs it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from novad.pipeline.processes import child_environment
from tiny_pipeline import wait_for

PARENT = """
import subprocess, sys, time
from novad.orphans import end_with_parent
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], preexec_fn=end_with_parent)
print(child.pid, flush=True)
time.sleep(60)
"""


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_when_its_parent_does(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not _ended(child)
        parent.send_signal(number)
        parent.wait()
        wait_for(lambda: _ended(child), 10)


def test_python_in_a_stage_is_the_interpreter_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("KEPT", "yes")
    found = child_environment(ADDED="too")
    assert found["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin", "/bin"]
    assert (found["KEPT"], found["ADDED"]) == ("yes", "too")
