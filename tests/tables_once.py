"""Databases with a service's tables and nothing in them: made by the first test process that asks."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from novad.config import Workspace

__all__ = ["tables_once"]


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
    target = of_run / name
    with FileLock(of_run / f"{name}.lock"):
        if not target.exists():
            workspace = Workspace(factory.mktemp("tables"))
            unfinished = workspace.root / name
            with sqlite3.connect(make(workspace)) as connection:
                connection.execute("VACUUM INTO ?", (str(unfinished),))
            unfinished.rename(target)
    return target
