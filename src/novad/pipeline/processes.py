"""Child processes: their environment and their end."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["child_environment", "end"]

_GRACE = 10.0


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
