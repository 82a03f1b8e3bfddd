"""No process outlives the one that started it: a killed training leaves none of its parts behind."""

import ctypes
import os
import signal
import sys

__all__ = ["end_with_parent"]

_PR_SET_PDEATHSIG = 1
# Opened before any fork: between fork and exec, where threads may hold locks, little may be done.
_LIBC = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def end_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies; in a child before it executes, or at its start."""
    if _LIBC is None:
        return
    parent = os.getppid()
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
