"""Child processes that never outlive their parent."""

import ctypes
import os
import signal
import sys
from pathlib import Path

__all__ = ["child_environment", "end_with_parent"]

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def end_with_parent() -> None:
    """Run in the child between fork and exec: Linux kills it when its parent dies."""
    if _LIBC is None:
        return
    parent = os.getppid()
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def child_environment(**changes: str) -> dict[str, str]:
    """This environment with the interpreter's own folder first on the path, and ``changes``."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, **changes}
