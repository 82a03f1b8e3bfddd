"""The demo: made-up product lines in a workspace, trained and approved through the same code as any."""

import shutil
import subprocess
import sys
from pathlib import Path

from novad.config import Workspace
from novad.errors import ConfigError, ServiceError
from novad.pipeline.processes import child_environment
from novad.pipeline.train import LineResult
from novad.tracking import champion_event, promote

__all__ = ["DEMO_LINES", "approve_first_versions", "prepare_workspace"]

DEMO_LINES = ("brushed-metal", "woven-fabric", "printed-board")
_LINKED = ("src", "flows", "mlflow", "requirements.lock", "dvc.yaml")
_COPIED = ("params.yaml", "data.dvc", ".dvcignore")


def prepare_workspace(workdir: Path | None) -> Workspace:
    """The project's own workspace, or one in ``workdir``, with the demo images in it.

    Raises:
        ConfigError: ``workdir`` holds something else, or the images are not those that ``data.dvc`` records.
    """
    project = Workspace.find()
    workspace = project if workdir is None else _elsewhere(project, workdir.absolute())
    if not (workspace.root / "data").is_dir():
        _make_data(workspace)
    return workspace


def approve_first_versions(workspace: Workspace, results: list[LineResult]) -> None:
    """Promote version 1 of every demo line that never had a champion, as a person would."""
    for result in results:
        if result.version == 1 and champion_event(workspace, result.line) is None:
            promote(workspace, result.line, 1, "demo", "first version of a demo line")


def _elsewhere(project: Workspace, root: Path) -> Workspace:
    if root.is_dir() and any(root.iterdir()) and not (root / "params.yaml").is_file():
        raise ConfigError(f"{root}: not empty and not a novad workspace; name an empty folder")
    root.mkdir(parents=True, exist_ok=True)
    for name in _LINKED:
        link = root / name
        if not link.is_symlink():
            link.symlink_to(project.root / name)
    for name in _COPIED:
        if not (root / name).exists():
            shutil.copyfile(project.root / name, root / name)
    if not (root / ".dvc").is_dir():
        _dvc(root, "init", "--no-scm", "--quiet")
        settings = (project.root / ".dvc" / "config").read_text("utf-8")
        told = settings.replace("[core]\n", "[core]\n    no_scm = true\n", 1)
        (root / ".dvc" / "config").write_text(told, "utf-8")
    return Workspace(root)


def _make_data(workspace: Workspace) -> None:
    """Draw the demo lines beside their place, check them, and move them in whole."""
    from novad.images import make_demo_lines

    fresh = workspace.state / "demo-data"
    shutil.rmtree(fresh, ignore_errors=True)
    make_demo_lines(fresh)
    fresh.rename(workspace.root / "data")
    tracked = workspace.root / "data.dvc"
    recorded = tracked.read_bytes()
    _dvc(workspace.root, "commit", "--force", "--quiet", "data.dvc")
    if tracked.read_bytes() != recorded:
        tracked.write_bytes(recorded)
        shutil.rmtree(workspace.root / "data")
        raise ConfigError(
            f"{tracked}: the demo images made here are not those recorded; image code and data.dvc must come "
            "from one version of novad"
        )


def _dvc(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root, env=child_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ServiceError(
            f"dvc {' '.join(arguments)} failed in {root}: {(done.stderr or done.stdout)[-500:]}"
        )
    return done.stdout
