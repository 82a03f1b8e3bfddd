"""The demo: made-up product lines in a workspace, trained and approved through the same code as any."""

import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

from novad.config import Workspace
from novad.errors import ConfigError, RefusedError, ServiceError
from novad.garbage import without_search
from novad.orphans import end_with_parent
from novad.pipeline.processes import child_environment
from novad.pipeline.train import LineResult
from novad.tracking import history, promote

__all__ = ["DEMO_LINES", "approve_first_versions", "changed_images", "prepare_workspace"]

DEMO_LINES = ("brushed-metal", "woven-fabric", "printed-board")
_LINKED = ("src", "flows", "mlflow", "requirements.lock", "dvc.yaml")
_COPIED = ("params.yaml", "data.dvc", ".dvcignore")


def prepare_workspace(workdir: Path | None) -> Workspace:
    """The project's own workspace, or one in ``workdir``, with the demo images in it.

    Raises:
        ConfigError: ``workdir`` holds something else, or the images are not those that ``data.dvc`` records.
        ServiceError: DVC failed.
    """
    project = Workspace.find()
    root = project.root if workdir is None else workdir.absolute()
    if root.exists() and not root.is_dir():
        raise ConfigError(f"--workdir: {root} is not a folder")
    locks = Workspace(root).state / "locks"
    strangers = [path for path in root.iterdir() if path.name != ".novad"] if root.is_dir() else []
    if strangers and not (root / "params.yaml").is_file():
        raise ConfigError(f"--workdir: {root} is not empty and not a novad workspace; name an empty folder")
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "demo.lock"):
        if root != project.root:
            _lay_out(project, root)
        if not (root / "data").is_dir() or _unchecked(Workspace(root)).exists():
            _make_data(Workspace(root))
    return Workspace(root)


def approve_first_versions(workspace: Workspace, results: list[LineResult]) -> dict[str, RefusedError]:
    """Promote version 1 of every demo line that nobody has decided about, as a person would.

    Returns:
        Lines whose first version the gates refused, with the reason.
    """
    refused = {}
    for result in results:
        if result.version == 1 and not history(workspace, result.line):
            try:
                promote(workspace, result.line, 1, "demo", "first version of a demo line")
            except RefusedError as error:
                refused[result.line] = error
    return refused


def changed_images(workspace: Workspace) -> str | None:
    """A sentence when somebody changed the demo images since they were made; None otherwise."""
    from novad.pipeline.graph import open_repository

    with open_repository(workspace) as repository:
        if not repository.status(targets=[str(workspace.root / "data.dvc")]):
            return None
    return (
        f"{workspace.root / 'data'}: the demo images are no longer those that data.dvc records, so the "
        "figures will differ; `dvc checkout data.dvc` brings them back"
    )


def _lay_out(project: Workspace, root: Path) -> None:
    """Make ``root`` a workspace on the project's code; params.yaml comes last, because it marks one."""
    for name in _LINKED:
        _link(root / name, project.root / name)
    if not (root / ".dvc" / "config").is_file():
        shutil.rmtree(root / ".dvc", ignore_errors=True)
        _dvc(root, "init", "--no-scm", "--quiet")
    settings = (project.root / ".dvc" / "config").read_text("utf-8")
    told = settings.replace("[core]\n", "[core]\n    no_scm = true\n", 1)
    (root / ".dvc" / "config").write_text(told, "utf-8")
    for name in reversed(_COPIED):
        if not (root / name).exists():
            partial = root / f".{name}.partial"
            shutil.copyfile(project.root / name, partial)
            partial.replace(root / name)


def _link(link: Path, target: Path) -> None:
    """A symbolic link to ``target``, also where one of another project stood."""
    if link.is_symlink() and link.readlink() == target:
        return
    fresh = link.with_name(f".{link.name}.partial")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _make_data(workspace: Workspace) -> None:
    """Draw the demo lines beside their place, check them, and move them in whole."""
    from novad.images import make_demo_lines

    fresh = workspace.state / "demo-data"
    shutil.rmtree(fresh, ignore_errors=True)
    make_demo_lines(fresh)
    _unchecked(workspace).touch()
    shutil.rmtree(workspace.root / "data", ignore_errors=True)
    fresh.rename(workspace.root / "data")
    tracked = workspace.root / "data.dvc"
    recorded = tracked.read_bytes()
    _dvc(workspace.root, "commit", "--force", "--quiet", "data.dvc")
    if tracked.read_bytes() != recorded:
        tracked.write_bytes(recorded)
        shutil.rmtree(workspace.root / "data")
        _unchecked(workspace).unlink()
        raise ConfigError(
            f"{tracked}: the demo images made here are not those recorded; image code and data.dvc must come "
            "from one version of novad"
        )
    _unchecked(workspace).unlink()


def _unchecked(workspace: Workspace) -> Path:
    """Lies there while the images are in place and not yet compared with ``data.dvc``; a kill leaves it."""
    return workspace.state / "demo-data.unchecked"


def _dvc(root: Path, *arguments: str) -> None:
    done = subprocess.run(
        without_search("dvc", *arguments),
        cwd=root,
        env=child_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        preexec_fn=end_with_parent,
        check=False,
    )
    if done.returncode:
        told = (done.stderr or done.stdout)[-500:].strip()
        raise ServiceError(f"dvc {' '.join(arguments)} failed in {root}: {told}")
