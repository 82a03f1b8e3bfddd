"""``novad doctor``: is this machine ready, and if not, what mends it."""

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata

import typer

from novad.cli.output import JSON, answer, command, table
from novad.config import Workspace, load_lines
from novad.errors import NovadError

__all__ = ["doctor"]

PACKAGES = (
    "torch", "torchvision", "timm", "bcos", "captum", "faiss-cpu", "scikit-learn", "mlflow", "prefect", "dvc",
    "great-expectations", "pydantic", "fastapi",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One thing looked at; ``mend`` says what to do when it is not well."""

    name: str
    well: bool
    found: str
    mend: str = ""


@command
def doctor(as_json: bool = JSON) -> None:
    """Check versions, settings, weights, write access and the tracking store; exits 1 on a problem."""
    checks = list(_checks())
    rows = [["ok" if check.well else "PROBLEM", check.name, check.found, check.mend] for check in checks]
    answer(
        {"well": all(check.well for check in checks), "checks": [asdict(check) for check in checks]},
        as_json,
        lambda console: console.print(table("novad doctor", ("", "what", "found", "mend"), rows)),
    )
    if not all(check.well for check in checks):
        raise typer.Exit(1)


def _checks() -> Iterator[Check]:
    yield Check("python", True, platform.python_version())
    for package in PACKAGES:
        yield _version(package)
    yield _pair("prefect", "fastapi", lambda fastapi: fastapi < (0, 151), "install fastapi>=0.139,<0.151")
    yield _pair_torch()
    try:
        workspace = Workspace.find()
        lines = load_lines(workspace.params)
        yield Check("workspace", True, f"{workspace.root}, {len(lines)} lines")
    except NovadError as error:
        yield Check("workspace", False, str(error), "run from the project folder, or mend the named key")
        return
    yield _writable(workspace)
    for checkpoint, sha256 in sorted(
        {
            (each.checkpoint, each.sha256)
            for settings in lines.values()
            for each in (settings.backbone, settings.explainer.backbone)
        }
    ):
        yield _weights(workspace, checkpoint, sha256)
    yield _dvc(workspace)
    yield _store(workspace)


def _version(package: str) -> Check:
    try:
        return Check(package, True, metadata.version(package))
    except metadata.PackageNotFoundError:
        return Check(package, False, "not installed", "run `make setup`")


def _pair(first: str, second: str, holds: Callable[[tuple[int, ...]], bool], mend: str) -> Check:
    try:
        version = metadata.version(second)
    except metadata.PackageNotFoundError:
        return Check(f"{first} with {second}", False, "not installed", mend)
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return Check(f"{first} with {second}", holds(parts), version, mend)


def _pair_torch() -> Check:
    """torchvision's compiled operators load only into the torch of their own build."""
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        return Check("torch with torchvision", True, f"{torch.__version__}, {torchvision.__version__}")
    except Exception as error:
        return Check("torch with torchvision", False, str(error)[:120], "install both from requirements.lock")


def _writable(workspace: Workspace) -> Check:
    well = os.access(workspace.root, os.W_OK)
    return Check("write access", well, str(workspace.root), "give yourself write access to the folder")


def _weights(workspace: Workspace, checkpoint: str, sha256: str) -> Check:
    import hashlib

    path = workspace.path(checkpoint)
    name, mend = f"weights {checkpoint}", "restore the file, or set its sha256 in params.yaml"
    if not path.is_file():
        return Check(name, False, "missing", mend)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    return Check(name, found == sha256, f"sha256 {found[:12]}", mend)


def _dvc(workspace: Workspace) -> Check:
    well = (workspace.root / ".dvc").is_dir()
    return Check(
        "dvc", well, ".dvc" if well else "not initialised", "run `novad demo` or `dvc init --no-scm`"
    )


def _store(workspace: Workspace) -> Check:
    from novad.tracking.store import locate, open_client

    try:
        store = locate(workspace)
        if store.sqlite_file is not None and not store.sqlite_file.exists():
            return Check("mlflow store", True, f"{store.tracking_uri} (made by the first training)")
        open_client(workspace).search_experiments(max_results=1)
        return Check("mlflow store", True, store.tracking_uri)
    except NovadError as error:
        return Check("mlflow store", False, str(error), "start the server, or unset MLFLOW_TRACKING_URI")
