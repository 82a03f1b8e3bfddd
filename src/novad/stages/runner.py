"""What every stage shares: arguments, exit codes, cost, and outputs that are whole or absent."""

import json
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from novad.config import Workspace
from novad.errors import ConfigError, NovadError, exit_code
from novad.garbage import spare_search
from novad.orphans import end_with_parent

__all__ = ["main", "peak_rss_mb", "read_json", "stage_output", "write_json"]


def main(run: Callable[[Workspace, str], None], stage: str) -> None:
    """Run one stage for the line named on the command line, and exit with the code of its error.

    Args:
        run: the stage; reads from and writes into the workspace.
        stage: its name, the folder of its outputs.
    """
    end_with_parent()
    spare_search()
    started = time.perf_counter()
    try:
        if len(sys.argv) != 2:
            raise ConfigError(f"usage: python -m novad.stages.{stage} LINE")
        workspace, line = Workspace.find(), sys.argv[1]
        with _naming(workspace.artifacts(line, stage)):
            run(workspace, line)
            _write_cost(workspace.artifacts(line, stage), time.perf_counter() - started)
    except NovadError as error:
        print(f"{stage}: {error}", file=sys.stderr)
        raise SystemExit(exit_code(error)) from None


@contextmanager
def stage_output(workspace: Workspace, line: str, stage: str) -> Iterator[Path]:
    """A fresh folder whose content becomes the stage's output when the block ends without an error.

    A process killed inside leaves only a hidden folder, which the next run of the stage removes.
    """
    target = workspace.artifacts(line, stage)
    target.parent.mkdir(parents=True, exist_ok=True)
    for left_over in target.parent.glob(f".{stage}-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{stage}-", dir=target.parent))
    try:
        yield fresh
        fresh.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_json(path: Path, document: object) -> None:
    """Write ``document`` with sorted keys, so that equal content is equal bytes."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """Content of a file that an earlier stage wrote.

    Raises:
        ConfigError: it is missing or damaged; the message names it and what to run.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); train the line again") from None


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


@contextmanager
def _naming(output: Path) -> Iterator[None]:
    """Tell which output a failed write was for: of a full disk libraries seldom name the file.

    Raises:
        ConfigError: a file could not be written or read; its traceback stays in the log.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        traceback.print_exc()
        raise ConfigError(f"{output}: was not written: {error}") from error


def _write_cost(folder: Path, seconds: float) -> None:
    write_json(folder / "cost.json", {"seconds": round(seconds, 3), "peak_rss_mb": peak_rss_mb()})
