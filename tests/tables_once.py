"""Databases with a service's tables and nothing in them: made by the first test process that asks."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from novad.config import Workspace

__all__ = ["made_once", "tables_once"]


def tables_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Workspace], Path]) -> Path:
    """The database ``name`` of this test run, to be copied and never changed.

    Args:
        factory: of temporary folders.
        name: of the file.
        make: lets the service make its tables in a workspace of their own, and says in which database.
    """
    of_run = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        of_run = of_run.parent

    def copy(unfinished: Path) -> None:
        with sqlite3.connect(make(Workspace(factory.mktemp("tables")))) as connection:
            connection.execute("VACUUM INTO ?", (str(unfinished),))

    return made_once(of_run / name, copy)


def made_once(target: Path, make: Callable[[Path], object]) -> Path:
    """``target``, made by the first test process that asks; others wait until it is whole."""
    with FileLock(f"{target}.lock"):
        if not target.exists():
            unfinished = target.with_name(f"{target.name}.unfinished")
            make(unfinished)
            unfinished.rename(target)
    return target
