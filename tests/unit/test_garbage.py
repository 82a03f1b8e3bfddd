"""Processes that spare the search for garbage run what they are asked to, and say no more than it does."""

import subprocess
import sys

import pytest

from novad.garbage import without_search


def _ended(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_module_runs_as_by_itself_with_its_arguments_and_status() -> None:
    told = _ended(without_search("json.tool", "--no-such-option"))
    assert told.returncode == 2
    assert "unrecognized arguments: --no-such-option" in told.stderr


@pytest.mark.parametrize("package", ["numpy", "triton"])
def test_the_end_of_a_process_is_silent(package: str) -> None:
    pytest.importorskip(package)
    program = f"from novad.garbage import spare_search\nspare_search()\nimport {package}"
    told = _ended([sys.executable, "-c", program])
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")
