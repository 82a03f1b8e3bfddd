"""Running one stage through ``dvc repro``, in a process of its own."""

import os
import re
import subprocess
from pathlib import Path

from novad.config import Workspace
from novad.errors import ConfigError, NovadError, RefusedError, ServiceError
from novad.garbage import without_search
from novad.orphans import end_with_parent
from novad.pipeline.processes import child_environment

__all__ = ["STAGE_THREADS", "reproduce"]

# Sums depend on how many threads share them: a stage gets the same number whether its line is trained alone
# or beside others, so that its bytes are the same. OMP_NUM_THREADS in the environment has the last word.
STAGE_THREADS = min(os.cpu_count() or 1, 4)

_LINES_SHOWN = 20


def reproduce(workspace: Workspace, address: str, force: bool = False) -> bool:
    """Bring one stage up to date; its upstream stages must be so already.

    Args:
        workspace: where.
        address: ``stage@line``.
        force: run even when nothing changed.
    Returns:
        Whether the stage ran; False when it was up to date, or restored from DVC's cache.
    Raises:
        RefusedError: the stage refused its input.
        ConfigError: wrong settings or input.
        ServiceError: DVC itself failed.
    """
    log = workspace.state / "logs" / f"{address.replace('@', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = os.environ.get("OMP_NUM_THREADS") or str(STAGE_THREADS)
    command = without_search("dvc", "--wait-for-lock", "repro", "--single-item", address)
    with log.open("w+", encoding="utf-8") as stream:
        finished = subprocess.run(
            [*command, *(["--force"] if force else [])],
            cwd=workspace.root,
            env=child_environment(
                NOVAD_WORKSPACE=str(workspace.root),
                OMP_NUM_THREADS=threads,
                OMP_WAIT_POLICY="PASSIVE",
                PYTHONUNBUFFERED="1",
            ),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=end_with_parent,
            check=False,
        )
        stream.seek(0)
        told = stream.read()
    if finished.returncode:
        raise _error(address, told, log)
    return "Running stage" in told


def _error(address: str, told: str, log: Path) -> NovadError:
    """The stage's own words and exit code, from what DVC printed."""
    stage, _, line_name = address.partition("@")
    code = re.search(r"exited with (-?\d+)", told)
    lines = [line.rstrip() for line in told.splitlines() if line.strip()]
    own = [
        position
        for position, line in enumerate(lines)
        if line.startswith((f"{stage}: ", f"{stage} {line_name}: "))
    ]
    if own:
        text = [
            line for line in lines[own[0] :] if not line.startswith(("ERROR: failed to reproduce", "Running"))
        ]
        message = "\n".join(text)
    else:
        shown = lines[-_LINES_SHOWN:] or ["not a word in its log: is there room on the disk?"]
        message = f"{address} failed:\n" + "\n".join(shown)
    message += f"\n(log: {log})"
    number = int(code.group(1)) if code else 3
    return {1: RefusedError, 2: ConfigError}.get(number if own else 3, ServiceError)(message)
