"""A stage of the temporary line ends in a process of its own: what it says and its code become the error."""

import subprocess
from pathlib import Path

import pytest

from novad.benchmarking.temporary_line import run_module
from novad.config import Workspace
from novad.errors import ConfigError, NovadError, RefusedError, ServiceError

TRACEBACK = "Traceback (most recent call last):\n  File x.py, line 1\nOSError: [Errno 27] File too large\n"


def ended(monkeypatch: pytest.MonkeyPatch, code: int, told: str) -> None:
    done = subprocess.CompletedProcess(["python"], code, "", told)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)


@pytest.mark.parametrize(
    ("code", "told", "kind", "message"),
    [
        (1, "validate: refused\n", RefusedError, "refused"),
        (2, f"{TRACEBACK}validate: out: was not written: File too large\n", ConfigError,
         "out: was not written: File too large"),
        (2, f"validate bench: warning x\n{TRACEBACK}validate: no room\nleft here", ConfigError,
         "no room\nleft here"),
        (3, "validate: no answer", ServiceError, "no answer"),
    ],
)  # fmt: skip
def test_a_stage_that_says_what_is_wrong_is_believed(
    code: int, told: str, kind: type[NovadError], message: str, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    ended(monkeypatch, code, told)
    with pytest.raises(kind) as caught:
        run_module(Workspace(tmp_path), "novad.stages.validate", "bench")
    assert (type(caught.value), str(caught.value)) == (kind, f"validate: {message}")


def test_what_lies_in_the_folder_where_it_starts_is_no_module_of_pythons(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('taken for json')")
    monkeypatch.chdir(tmp_path)
    run_module(Workspace(tmp_path), "json.tool", "--help")


@pytest.mark.parametrize(
    ("code", "told"), [(1, TRACEBACK), (-9, ""), (-9, "validate: no room"), (1, f"invalidate: {TRACEBACK}")]
)
def test_a_fault_or_a_kill_is_neither(
    code: int, told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended(monkeypatch, code, told)
    with pytest.raises(RuntimeError, match=f"novad.stages.validate ended with {code}"):
        run_module(Workspace(tmp_path), "novad.stages.validate", "bench")
