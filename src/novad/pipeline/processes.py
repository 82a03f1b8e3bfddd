"""Child processes that never outlive their parent."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["child_environment", "end", "end_with_parent"]

_PR_SET_PDEATHSIG = 1
_GRACE = 10.0
_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def end_with_parent() -> None:
    """Run in the child between fork and exec: Linux kills it when its parent dies."""
    if _LIBC is None:
        return
    parent = os.getppid()
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a child to end, and make it where it does not."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def child_environment(**changes: str) -> dict[str, str]:
    """This environment with the interpreter's own folder first on the path, and ``changes``."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, **changes}
