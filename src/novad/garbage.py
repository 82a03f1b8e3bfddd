"""No search for garbage in what large libraries load: for processes that load them, do one thing and end.

``python -m novad.garbage MODULE ARGUMENTS`` runs a module of another package in that way.
"""

import atexit
import gc
import runpy
import sys

__all__ = ["spare_search", "without_search"]


def spare_search() -> None:
    """Search seldom, and not once more among a million objects when the process ends.

    The libraries make objects that stay: looking for garbage among them again and again takes an eighth to a
    fifth of the time that they need to load, and looking a last time at the end up to a second.
    """
    gc.set_threshold(50_000, 20, 20)
    atexit.register(_keep)


def _keep() -> None:
    # Triton's bindings complain on stderr of objects that nobody collected.
    if "triton" not in sys.modules:
        gc.freeze()


def without_search(module: str, *arguments: str) -> list[str]:
    """Command that runs a module of another package so."""
    return [sys.executable, "-m", "novad.garbage", module, *arguments]


if __name__ == "__main__":
    spare_search()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
