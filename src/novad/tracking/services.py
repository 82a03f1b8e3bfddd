"""What ``novad up`` runs for a workspace, for every process that looks; the note counts while it lives."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from novad.config import Workspace

__all__ = ["RunningService", "RunningServices", "find_services", "hold_services"]

# A reader touches the lock for an instant; whoever wants to hold it must not take that for a holder.
_PATIENCE = 1.0


@dataclass(frozen=True)
class RunningService:
    """One child of ``novad up``."""

    name: str
    """``prefect``, ``mlflow``, ``worker`` or ``serve``."""
    pid: int
    url: str
    """Where it listens."""
    health: str
    """Address that answers with success while it is well."""
    log: str


@dataclass(frozen=True)
class RunningServices:
    """The children of a ``novad up``, in the order of their start."""

    pid: int
    """Of ``novad up`` itself."""
    since: str
    services: tuple[RunningService, ...] = ()

    def url(self, name: str) -> str | None:
        """Where the service of this name listens; None when it does not run here."""
        return next((service.url for service in self.services if service.name == name), None)


def find_services(workspace: Workspace) -> RunningServices | None:
    """What runs now; None when no living ``novad up`` holds the workspace, whatever a dead one left."""
    note = _note(workspace)
    if not note.is_file() or not _held(_lock(workspace)):
        return None
    try:
        told = json.loads(note.read_text("utf-8"))
        services = tuple(RunningService(**each) for each in told.pop("services"))
        return RunningServices(**told, services=services)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # It is only now beginning, or ending.


@contextmanager
def hold_services(workspace: Workspace) -> Iterator[Callable[[RunningServices], None] | None]:
    """Be the one that runs the services of ``workspace``; the lock ends with the process.

    Yields:
        What writes the note that others read; None when another process is the one.
    """
    workspace.state.mkdir(parents=True, exist_ok=True)
    with _lock(workspace).open("w") as stream:
        if not _taken(stream.fileno()):
            yield None
            return
        note = _note(workspace)
        note.unlink(missing_ok=True)

        def tell(running: RunningServices) -> None:
            fresh = note.with_suffix(".new")
            fresh.write_text(json.dumps(asdict(running), indent=2), "utf-8")
            fresh.replace(note)

        try:
            yield tell
        finally:
            note.unlink(missing_ok=True)


def _note(workspace: Workspace) -> Path:
    return workspace.state / "up.json"


def _lock(workspace: Workspace) -> Path:
    return workspace.state / "up.lock"


def _taken(descriptor: int) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


def _held(lock: Path) -> bool:
    """Whether a process holds ``lock``: shared, so that readers do not take each other for the holder."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
