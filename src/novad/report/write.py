"""A report on disk: whole or not at all."""

from dataclasses import dataclass
from pathlib import Path

from novad.config import Workspace
from novad.config.whole_file import write_whole
from novad.errors import ConfigError
from novad.report.page import render
from novad.report.subject import registered_subject
from novad.report.verdict import answer

__all__ = ["Written", "write_report"]


@dataclass(frozen=True)
class Written:
    """A report that was written."""

    line: str
    version: int | None
    verdict: str
    path: str
    bytes: int


def write_report(workspace: Workspace, line: str, version: int | None, output: Path | None) -> Written:
    """Write the page of a registered version; what was there under its name is replaced.

    Args:
        version: None for the champion, or the newest version of a line without one.
        output: None for `LINE-vVERSION.html` in the working folder.
    Raises:
        ConfigError: nothing is registered, no such version, or a name that cannot be written to.
        IntegrityError: a file of its evidence is not the one that was published.
        ServiceError: the store cannot be reached.
    """
    if output is not None:
        _require_place(output)
    subject = registered_subject(workspace, line, version)
    target = (output or Path(f"{line}-v{subject.run.version}.html")).resolve()
    _require_place(target)
    page = render(subject).encode()
    write_whole(target, page)
    told = answer(subject)
    return Written(line, subject.run.version, f"{told.short} {told.reason}", str(target), len(page))


def _require_place(target: Path) -> None:
    if target.is_dir():
        raise ConfigError(f"--output: {target} is a folder; name a file")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"--output: {target.absolute().parent}: no such folder")
