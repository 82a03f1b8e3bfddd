"""What all processes of a test run share: made by the first that asks, found by the others."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

__all__ = ["made_once"]


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The file ``name`` of this run, which ``make`` writes where it is told to; nobody may change it."""
    of_run = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        of_run = of_run.parent
    target = of_run / name
    with FileLock(of_run / f"{name}.lock"):
        if not target.exists():
            unfinished = factory.mktemp("once") / name
            make(unfinished)
            unfinished.rename(target)
    return target
