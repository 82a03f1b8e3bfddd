"""``novad doctor``: is this machine ready, and if not, what mends it."""

import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import typer

from novad.cli.output import JSON, answer, progress, table, where_to_look
from novad.config import LineSettings, Workspace, load_lines
from novad.config.environment import scoring_device
from novad.config.settings import BUNDLED_CHECKPOINT
from novad.errors import NovadError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Check", "check_pairs", "check_weights", "doctor"]

_FROM_LOCK = "install what requirements.lock names: `make setup`"

# Pairs that install together and fail together: (package, from, below, with, from, below, why, mend).
_BAD_PAIRS = (
    ("prefect", "0", "3.8.9", "fastapi", "0.155", "99", "Prefect's server does not start with this FastAPI",
     'pip install "fastapi>=0.139,<0.151"'),
    ("prefect", "0", "3.8.9", "sqlalchemy", "2.1", "99",
     "Prefect plans no scheduled run with this SQLAlchemy", 'pip install "sqlalchemy>=2,<2.1"'),
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One thing looked at; ``mend`` says what to do when it is not well."""

    name: str
    well: bool
    found: str
    mend: str = ""


def doctor(as_json: bool = JSON) -> None:
    """Check versions, settings, weights, write access, DVC and the tracking store; exits 1 on a problem."""
    with progress("looking"):
        checks = list(_checks())
    problems = [check for check in checks if not check.well]

    def show(console: "Console") -> None:
        rows = [["ok" if check.well else "PROBLEM", check.name, check.found] for check in checks]
        console.print(table("novad doctor", ("", "what", "found"), rows))
        for check in problems:
            console.print(f"{check.name}: {check.found}. Mend: {check.mend}", soft_wrap=True)
        if not problems:
            console.print("All is well.")
            console.print(where_to_look(Workspace.find()), soft_wrap=True)

    answer({"well": not problems, "checks": [asdict(check) for check in checks]}, as_json, show)
    if problems:
        raise typer.Exit(1)


def _checks() -> Iterator[Check]:
    yield Check("python", True, f"{platform.python_version()} in {sys.prefix}")
    installed = _installed()
    yield from check_requirements(metadata.requires("novad") or [], installed)
    yield from check_pairs(installed)
    yield _torch_pair()
    yield _device()
    try:
        workspace = Workspace.find()
        lines = load_lines(workspace.params)
    except NovadError as error:
        yield Check("workspace", False, str(error), "run from the project folder, or mend the named key")
        return
    yield Check("workspace", True, f"{workspace.root}, {len(lines)} lines")
    yield _writable(workspace)
    yield from check_weights(workspace, lines)
    yield from _images(workspace, lines)
    yield _dvc(workspace)
    yield _store(workspace)


def _installed() -> dict[str, str]:
    return {
        each.metadata["Name"].lower().replace("_", "-"): each.version
        for each in metadata.distributions()
        if each.metadata["Name"]
    }


def check_requirements(requirements: Iterable[str], installed: Mapping[str, str]) -> Iterator[Check]:
    """Whether every package that novad itself asks for is there, in a version that it allows."""
    from packaging.requirements import Requirement

    for text in requirements:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = installed.get(wanted.name.lower().replace("_", "-"))
        if found is None:
            yield Check(wanted.name, False, "not installed", _FROM_LOCK)
        else:
            well = wanted.specifier.contains(found, prereleases=True)
            yield Check(
                wanted.name, well, found if well else f"{found}, needs {wanted.specifier}", _FROM_LOCK
            )


def check_pairs(installed: Mapping[str, str]) -> Iterator[Check]:
    """Pairs of versions that are known not to work together."""
    from packaging.version import Version

    for first, low, high, second, second_low, second_high, why, mend in _BAD_PAIRS:
        if first not in installed or second not in installed:
            continue
        bad = Version(low) <= Version(installed[first]) < Version(high) and (
            Version(second_low) <= Version(installed[second]) < Version(second_high)
        )
        told = f"{installed[first]} with {installed[second]}"
        yield Check(f"{first} with {second}", not bad, f"{told}: {why}" if bad else told, mend)


def _torch_pair() -> Check:
    """torchvision's compiled operators load only into the torch of their own build."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        return Check("torch with torchvision", True, f"{torch.__version__} with {torchvision.__version__}")
    except Exception as error:
        return Check("torch with torchvision", False, str(error).splitlines()[0][:160], _FROM_LOCK)


def _device() -> Check:
    """The device that ``NOVAD_DEVICE`` names, or the processor."""
    from novad.vision.devices import check_device

    device = scoring_device()
    try:
        check_device(device)
    except NovadError as error:
        return Check(
            "scoring device", False, str(error), "unset NOVAD_DEVICE, or name a device that is there"
        )
    return Check("scoring device", True, device)


def _writable(workspace: Workspace) -> Check:
    """Write for real: permission bits say little about read-only mounts, full disks and quotas."""
    mend = "give yourself write access to the folder and room on its disk, or use WORKDIR"
    try:
        workspace.state.mkdir(parents=True, exist_ok=True)
        for folder in (workspace.root, workspace.state):
            with tempfile.TemporaryFile(dir=folder) as stream:
                stream.write(b"novad")
    except OSError as error:
        return Check("write access", False, str(error), mend)
    return Check("write access", True, str(workspace.root))


def check_weights(workspace: Workspace, lines: Mapping[str, LineSettings]) -> Iterator[Check]:
    """Whether every checkpoint that a line names is there, byte by byte; the bundled one always."""
    wanted: dict[tuple[str, str], list[str]] = {}
    for name, settings in lines.items():
        for each in (settings.backbone, settings.explainer.backbone):
            wanted.setdefault((each.checkpoint, each.sha256), []).append(name)
    if not any(checkpoint == BUNDLED_CHECKPOINT for checkpoint, _ in wanted):
        well = workspace.path(BUNDLED_CHECKPOINT).is_file()
        mend = "restore the file from the repository"
        yield Check(f"weights {BUNDLED_CHECKPOINT}", well, "present" if well else "missing", mend)
    for (checkpoint, sha256), names in sorted(wanted.items()):
        yield _weights(workspace, checkpoint, sha256, sorted(set(names)))


def _weights(workspace: Workspace, checkpoint: str, sha256: str, lines: list[str]) -> Check:
    path, name = workspace.path(checkpoint), f"weights {checkpoint}"
    used = f"used by {', '.join(lines)}"
    if not path.is_file():
        return Check(name, False, f"missing, {used}", "restore the file")
    from novad.tracking.digests import file_digest

    found = file_digest(path)
    if found != sha256:
        told = f"sha256 is {found[:12]}..., params.yaml says {sha256[:12]}..., {used}"
        return Check(name, False, told, "restore the file, or write its sha256 into params.yaml")
    return Check(name, True, f"sha256 {found[:12]}..., {used}")


def _images(workspace: Workspace, lines: Mapping[str, LineSettings]) -> Iterator[Check]:
    for name, settings in lines.items():
        folder = workspace.path(settings.data)
        mend = "`novad demo` makes demo images, `dvc checkout` brings back those of a line"
        if folder.is_dir():
            yield Check(f"images of {name}", True, settings.data)
        else:
            yield Check(f"images of {name}", False, f"{settings.data} is missing", mend)


def _dvc(workspace: Workspace) -> Check:
    if not (workspace.root / ".dvc" / "config").is_file():
        return Check("dvc set up", False, "no .dvc/config", "`novad demo --workdir`, or `dvc init`")
    from novad.pipeline.graph import line_stages

    try:
        names = list(load_lines(workspace.params))
        stages = line_stages(workspace, names)
    except NovadError as error:
        return Check("dvc set up", False, str(error), "mend dvc.yaml")
    return Check("dvc set up", True, f"{len(stages)} stages")


def _store(workspace: Workspace) -> Check:
    from novad.tracking.store import locate, open_client

    try:
        store = locate(workspace)
        if store.sqlite_file is not None and not store.sqlite_file.exists():
            return Check("mlflow store", True, f"{store.uri} (made by the first training)")
        open_client(workspace)
        return Check("mlflow store", True, store.uri)
    except NovadError as error:
        return Check("mlflow store", False, str(error), "start the server, or unset MLFLOW_TRACKING_URI")
