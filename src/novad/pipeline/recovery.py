"""Mending what a killed DVC leaves behind, so that the next run needs no hand."""

import json
import time
from pathlib import Path
from typing import Any

from novad.config import Workspace
from novad.config.whole_file import write_whole
from novad.pipeline.graph import open_repository

__all__ = ["mend"]


def mend(workspace: Workspace) -> list[str]:
    """Put DVC's own files in order while nobody else holds DVC's lock.

    DVC writes ``dvc.lock`` and ``.dvc/tmp/rwlock`` in place, so that a kill can leave half a file, which DVC
    then refuses for ever; and it takes a claim in ``rwlock`` for alive as long as *any* process has that
    number, also a zombie or, after a restart of a container, a stranger.

    Returns:
        What was mended, for people; empty as a rule.
    """
    with open_repository(workspace) as repository:
        return [*_mend_lock_file(workspace, repository), *_mend_claims(Path(repository.tmp_dir) / "rwlock")]


def _mend_lock_file(workspace: Workspace, repository: Any) -> list[str]:
    """A damaged ``dvc.lock`` goes aside; DVC's run cache gives the results back without running stages."""
    from dvc.dvcfile import Lockfile
    from dvc.exceptions import DvcException

    path = workspace.root / "dvc.lock"
    try:
        Lockfile(repository, str(path)).load()
    except DvcException:
        aside = workspace.state / f"dvc.lock.damaged-{time.strftime('%Y%m%dT%H%M%S')}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.replace(aside)
        return [f"{path} was damaged; it is kept as {aside}"]
    return []


def _mend_claims(path: Path) -> list[str]:
    try:
        claims = json.loads(path.read_text("utf-8"))
        read, write = claims.get("read", {}), claims.get("write", {})
        readers = {name: [each for each in held if _alive(each)] for name, held in read.items()}
        writers = {name: held for name, held in write.items() if _alive(held)}
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError):
        path.unlink()
        return [f"{path} was damaged; it is removed"]
    alive = {"write": writers, "read": {name: held for name, held in readers.items() if held}}
    if alive == {"write": write, "read": read}:
        return []
    write_whole(path, json.dumps(alive).encode())
    return [f"{path}: claims of dead processes are removed"]


def _alive(claim: dict[str, Any]) -> bool:
    """Whether the process that made a claim still runs; its number alone may be another's by now."""
    import psutil

    try:
        process = psutil.Process(int(claim["pid"]))
        return process.status() != psutil.STATUS_ZOMBIE and "dvc" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
