"""The folder of a benchmark's results: one run writes there at a time, and leaves no older figures in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from novad.benchmarking.report import RESULTS
from novad.benchmarking.temporary_line import LINE
from novad.config import Workspace
from novad.errors import ConfigError, RefusedError
from novad.images.report import told
from novad.stages.runner import read_json

__all__ = ["working_folder"]

_WORK = ".work"
_LOCK = ".lock"
_REFUSAL = "data-gate-refusal"


@contextmanager
def working_folder(results: Path) -> Iterator[Path]:
    """An empty folder inside that of the results, gone afterwards; older results go when it is made.

    Raises:
        ConfigError: another benchmark has the folder.
        RefusedError: that of the block; the data gate's names images, and the report is kept.
    """
    lock, work = FileLock(results / _LOCK, timeout=0), results / _WORK
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"{results}: another benchmark writes here; name another folder by --out") from None
    try:
        _clear(results)
        work.mkdir()
        yield work
    except RefusedError as error:
        raise _kept(error, Workspace(work), results / _REFUSAL) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
        # Whoever opened the lock file before it went sees that, and makes a new one.
        (results / _LOCK).unlink(missing_ok=True)
        lock.release()


def _clear(results: Path) -> None:
    for name in RESULTS:
        (results / name).unlink(missing_ok=True)
    for folder in (_WORK, _REFUSAL):
        shutil.rmtree(results / folder, ignore_errors=True)


def _kept(error: RefusedError, workspace: Workspace, folder: Path) -> RefusedError:
    """The gate's refusal by image, in words for who has no line; its report outlives the temporary one."""
    refused = workspace.state / "refused" / LINE
    if not refused.is_dir():
        return error
    shutil.copytree(refused, folder)
    report = read_json(folder / "report.json")
    lines = told([*report["errors"], *report.get("left_out", [])])
    return RefusedError(
        "\n  ".join(["the data gate refuses the images:", *lines])
        + f"\nReport: {folder / 'report.json'}, pages: {folder / 'docs' / 'index.html'}"
    )
