"""Training from outside a flow: what needs doing, and the launch of the flow that does it."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from novad.config import Workspace, line_settings
from novad.errors import ConfigError, NovadError, ServiceError
from novad.pipeline.accepting import undo_interrupted
from novad.pipeline.flow_files import flow_file, load_flow
from novad.pipeline.graph import line_stages, stale_stages
from novad.pipeline.locks import line_locks
from novad.pipeline.prefect_home import prefect_api
from novad.pipeline.recovery import mend
from novad.pipeline.reproduce import reproduce
from novad.pipeline.tracked_data import require_fetched
from novad.tracking import output_digest, published_version

__all__ = ["LineResult", "TrainingFailed", "train_lines", "validate_line"]

_LOG = logging.getLogger(__name__)


class TrainingFailed(Exception):  # noqa: N818
    """Some lines failed; ``results`` says which, why, and what the others gave."""

    def __init__(self, message: str, results: dict[str, dict[str, Any]]) -> None:
        super().__init__(message)
        self.results = results


@dataclass(frozen=True)
class LineResult:
    """What training did for one line.

    Attributes:
        line: its name.
        version: registered version that holds the result; None after an error.
        run_id: MLflow run; None when nothing changed or after an error.
        ran: addresses of the stages that ran.
        unchanged: nothing was stale and the result is registered already.
        error: why the line has no new result.
        seconds: wall time of the whole call.
        reason: why it was trained.
    """

    line: str
    version: int | None = None
    run_id: str | None = None
    ran: list[str] = field(default_factory=list)
    unchanged: bool = False
    error: NovadError | None = None
    seconds: float = 0.0
    reason: str = "by hand"


def train_lines(
    workspace: Workspace,
    lines: list[str],
    force: bool = False,
    wait: bool = False,
    reason: str = "by hand",
) -> list[LineResult]:
    """Bring lines up to date and publish them; lines with nothing to do cost seconds.

    Args:
        workspace: of the lines.
        lines: names.
        force: run every stage even when nothing changed.
        wait: for lines that another run holds, instead of refusing.
        reason: why they are trained, kept with the flow run and with every version that comes of it.
    Raises:
        ConfigError: an unknown line or wrong settings.
        LineBusyError: another run holds one of the lines.
        ServiceError: Prefect or DVC failed as a whole.
    """
    for line in lines:
        _require_images(workspace, line)
    started = time.perf_counter()
    with line_locks(workspace, lines, wait):
        _prepare(workspace, lines)
        versions = {} if force else _unchanged(workspace, lines)
        todo = [line for line in lines if line not in versions]
        outcome = _run_flow(workspace, todo, force, reason) if todo else {}
    seconds = round(time.perf_counter() - started, 1)
    return [
        LineResult(line, versions[line], unchanged=True, seconds=seconds, reason=reason)
        if line in versions
        else _result(line, outcome[line], seconds, reason)
        for line in lines
    ]


def validate_line(workspace: Workspace, line: str) -> bool:
    """Run the data gate of one line alone.

    Returns:
        False when nothing had changed since it last passed.
    Raises:
        ConfigError: an unknown line, wrong settings or missing images.
        LineBusyError: another run holds the line.
        RefusedError: the images do not pass; the message names them.
    """
    _require_images(workspace, line)
    with line_locks(workspace, [line]):
        _prepare(workspace, [line])
        line_stages(workspace, [line])
        return reproduce(workspace, f"validate@{line}")


def _require_images(workspace: Workspace, line: str) -> None:
    folder = workspace.path(line_settings(workspace.params, line).data)
    if not folder.is_dir():
        require_fetched(workspace, line)
        raise ConfigError(f"{folder}: the images of {line} are missing; `dvc checkout` brings them back")


def _prepare(workspace: Workspace, lines: list[str]) -> None:
    """Mend what a kill left, and see that the images are those that DVC recorded."""
    for mended in mend(workspace):
        _LOG.warning("%s", mended)
    for line in lines:
        undo_interrupted(workspace, line)
        require_fetched(workspace, line)


def _unchanged(workspace: Workspace, lines: list[str]) -> dict[str, int]:
    """Version of every line that has nothing stale and is registered as it is."""
    stale = {address.partition("@")[2] for address in stale_stages(workspace, lines)}
    found = {}
    for line in lines:
        if line in stale:
            continue
        version = published_version(workspace, line, output_digest(workspace, line))
        if version is not None:
            found[line] = version
    return found


def _run_flow(workspace: Workspace, lines: list[str], force: bool, reason: str) -> dict[str, dict[str, Any]]:
    flow_file(workspace, "train")  # Told before a server starts.
    with prefect_api(workspace, lines):
        module = load_flow(workspace, "train")
        try:
            results: dict[str, dict[str, Any]] = module.train(workspace.root, lines, force, reason)
        except TrainingFailed as error:
            results = error.results
        return results


def _result(line: str, told: dict[str, Any], seconds: float, reason: str) -> LineResult:
    error = told.get("error")
    if error is not None and not isinstance(error, NovadError):
        error = ServiceError(f"{line}: {type(error).__name__}: {error}")
    published = told.get("published")
    return LineResult(
        line,
        published.version if published else None,
        published.run_id if published else None,
        told["ran"],
        False,
        error,
        seconds,
        reason,
    )
