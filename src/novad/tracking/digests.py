"""Digests of what a line's stages left behind: what makes two trainings the same training."""

import hashlib
import json
from pathlib import Path
from typing import Any

from novad.config import Workspace
from novad.errors import ConfigError, IntegrityError

__all__ = [
    "STAGES",
    "combined",
    "file_digest",
    "folder_digests",
    "folder_files",
    "metrics_digest",
    "output_digest",
    "output_manifest",
    "read_metrics",
]

STAGES = ("validate", "memory_bank", "calibrate_explainer", "tune_fusion", "evaluate")

# A record of how long a stage took, and Data Docs with the time of their run: they differ between two
# runs that gave the same result.
_RECORDS = ("cost.json",)
_RECORD_FOLDERS = ("docs",)


def output_digest(workspace: Workspace, line: str) -> str:
    """Hex sha256 over the names and digests of every output of ``line``; equal for equal results.

    Raises:
        ConfigError: a stage left nothing: the line is not trained.
        IntegrityError: ``metrics.json`` is not readable JSON.
    """
    return combined(output_manifest(workspace, line))


def output_manifest(workspace: Workspace, line: str) -> dict[str, str]:
    """Sha256 of each output by its path below ``artifacts/LINE``, without records of time and cost.

    Raises:
        ConfigError: a stage left nothing: the line is not trained.
        IntegrityError: ``metrics.json`` is not readable JSON.
    """
    manifest = {}
    for stage in STAGES:
        folder = workspace.artifacts(line, stage)
        files = [path for path in folder_files(folder) if not _is_record(path)] if folder.is_dir() else []
        if not files:
            raise ConfigError(f"{folder}: no outputs here; run `novad train {line}` first")
        for name in files:
            path = folder / name
            manifest[f"{stage}/{name}"] = (
                metrics_digest(path) if (stage, name) == ("evaluate", "metrics.json") else file_digest(path)
            )
    return manifest


def read_metrics(path: Path) -> dict[str, Any]:
    """The document of a ``metrics.json``.

    Raises:
        IntegrityError: missing, or not a JSON object.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(document, dict):
        raise IntegrityError(f"{path}: must hold a JSON object")
    return document


def metrics_digest(path: Path) -> str:
    """Hex sha256 over the figures of a ``metrics.json``, without what the training cost.

    Raises:
        IntegrityError: missing, or not a JSON object.
    """
    metrics = read_metrics(path)
    metrics.pop("cost", None)
    text = json.dumps(metrics, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def combined(manifest: dict[str, str]) -> str:
    """One digest for a manifest of names and digests, whatever its order."""
    text = json.dumps(manifest, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def folder_files(folder: Path) -> list[str]:
    """Posix paths of every file below ``folder``, sorted; hidden ones are temporary and left out."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


def folder_digests(folder: Path) -> dict[str, str]:
    """Sha256 of everything below ``folder`` by its posix path: hidden files and compiled code, too.

    A link to a folder, a pipe and the like have a word in place of a digest, which no record holds.
    """
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: file_digest(path) if path.is_file() else "not a file"
        for name, path in sorted(found.items())
        if path.is_symlink() or not path.is_dir()
    }


def file_digest(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_record(name: str) -> bool:
    parts = name.split("/")
    return parts[-1] in _RECORDS or parts[0] in _RECORD_FOLDERS
