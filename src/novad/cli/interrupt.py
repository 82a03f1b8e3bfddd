"""Ctrl-C, also where it reaches only this process: what it started ends first, then the command."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["INTERRUPTED", "stops_children"]

INTERRUPTED = 130
# Prefect waits for its tasks before it lets an interrupt through; a stage ends within a second or two.
_PATIENCE = 15.0


@contextmanager
def stops_children(give_up: Callable[[], None]) -> Iterator[None]:
    """On SIGINT, end the stages that run below this process, so that the interrupt can unwind at once.

    Args:
        give_up: called before the process leaves by force, when unwinding takes too long; what a kill
            leaves behind is mended by the next run.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave() -> None:
        give_up()
        os._exit(INTERRUPTED)

    watchdog = threading.Timer(_PATIENCE, leave)
    watchdog.daemon = True

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        if not watchdog.is_alive():
            watchdog.start()
        _end_stages()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        watchdog.cancel()


def _end_stages() -> None:
    """Ask DVC's processes and all below them to end; Prefect's own server stays, to be told by the flow."""
    import psutil

    for child in psutil.Process().children():
        try:
            stage = [child, *child.children(recursive=True)] if "dvc" in child.cmdline() else []
            for process in stage:
                process.terminate()
        except psutil.Error:
            continue
