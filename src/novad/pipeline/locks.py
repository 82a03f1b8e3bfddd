"""One run per product line at a time; a lock dies with its process."""

import itertools
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from novad.config import Workspace
from novad.config.whole_file import write_whole
from novad.errors import LineBusyError

__all__ = ["first_free", "line_locks"]


@contextmanager
def line_locks(workspace: Workspace, lines: list[str], wait: bool = False) -> Iterator[None]:
    """Hold every line of ``lines``, always in the same order so that two runs cannot block each other.

    Args:
        workspace: whose lines.
        lines: names.
        wait: until they are free, instead of refusing.
    Raises:
        LineBusyError: another process holds one; the message says which process, since when.
        ConfigError: the workspace cannot be written to.
    """
    with ExitStack() as stack:
        for line in sorted(set(lines)):
            stack.enter_context(_line_lock(workspace, line, wait))
        yield


@contextmanager
def _line_lock(workspace: Workspace, line: str, wait: bool) -> Iterator[None]:
    folder = workspace.state / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / f"{line}.json"
    lock = FileLock(folder / f"{line}.lock", timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise LineBusyError(
            f"{line}: another run holds this line ({_told(holder)}); wait for it, or use --wait"
        ) from None
    try:
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        write_whole(holder, json.dumps({"pid": os.getpid(), "since": started}).encode())
        yield
    finally:
        lock.release()


def _told(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text("utf-8"))
        return f"process {found['pid']} since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "process not yet known"


@contextmanager
def first_free(folder: Path) -> Iterator[Path]:
    """The first numbered sub-folder of ``folder`` that no living process holds; held while inside."""
    for number in itertools.count():
        place = folder / str(number)
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        try:
            yield place
        finally:
            lock.release()
        return
