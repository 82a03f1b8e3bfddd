"""Where a result comes from: code, data, settings and environment, as tags of its run."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

import novad
from novad.config import Workspace
from novad.errors import ConfigError
from novad.tracking.digests import STAGES, file_digest

__all__ = ["GitState", "Lineage", "Stages", "dvc_digests", "git_state", "lineage_tags"]

# Per stage the digests of its "deps" and "outs", by path.
Stages = dict[str, dict[str, dict[str, str]]]

_GIT_SECONDS = 30
# MLflow refuses longer tag values; the whole record is in the run's lineage.json.
_TAG_CHARACTERS = 5000


@dataclass(frozen=True)
class GitState:
    """What git says about the code that ran."""

    commit: str | None
    """Full commit id; None outside a repository or where git is not installed."""
    dirty: bool | None
    """True when tracked files differ from the commit; None when nothing is known."""


@dataclass(frozen=True)
class Lineage:
    """What a run is told about where it comes from."""

    tags: dict[str, str]
    """From ``lineage_tags``, and why the line was trained."""
    stages: Stages


def lineage_tags(workspace: Workspace, stages: Stages, flow_run_id: str | None = None) -> dict[str, str]:
    """Tags of a run: git commit, DVC digests of every input and output, lock file, flow run, version."""
    git = git_state(workspace)
    tags = {
        "novad.version": novad.__version__,
        "novad.git_commit": git.commit or "none",
        "novad.git_dirty": "unknown" if git.dirty is None else str(git.dirty).lower(),
    }
    if git.commit is not None:
        tags["mlflow.source.git.commit"] = git.commit
    lock = workspace.path("requirements.lock")
    tags["novad.requirements_lock"] = file_digest(lock) if lock.is_file() else "none"
    if flow_run_id is not None:
        tags["novad.prefect_flow_run"] = flow_run_id
    for stage, record in stages.items():
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        tags[f"novad.dvc.{stage}"] = text if len(text) <= _TAG_CHARACTERS else "see lineage.json"
    return tags


def dvc_digests(workspace: Workspace, line: str) -> Stages:
    """For every stage of ``line``: ``{"deps": {path: digest}, "outs": {path: digest}}`` from ``dvc.lock``.

    Empty where nothing was reproduced by DVC, which writes the file in place: who reads it while other lines
    are trained holds DVC's lock.

    Raises:
        ConfigError: ``dvc.lock`` is not readable.
    """
    lock = workspace.path("dvc.lock")
    try:
        document = YAML(typ="safe").load(lock.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ConfigError(f"{lock}: not readable: {error}") from error
    stages = document.get("stages") if isinstance(document, dict) else None
    if not isinstance(stages, dict):
        raise ConfigError(f"{lock}: stages: must map stage names to what they read and wrote")
    return {
        stage: {kind: _digests(stages[f"{stage}@{line}"].get(kind, [])) for kind in ("deps", "outs")}
        for stage in STAGES
        if f"{stage}@{line}" in stages
    }


def git_state(workspace: Workspace) -> GitState:
    """Commit and cleanliness of the repository that holds the workspace, or else the running code."""
    for folder in (workspace.root, Path(novad.__file__).parent):
        commit = _git(folder, "rev-parse", "--verify", "HEAD")
        if commit:
            changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
            return GitState(commit, None if changed is None else bool(changed))
    return GitState(None, None)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _digests(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {
        str(entry["path"]): str(entry.get("md5") or entry.get("etag") or entry.get("checksum") or "none")
        for entry in entries
    }
