"""Adding a product line: its images into the workspace, its settings into ``params.yaml``, all or nothing."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cronsim import CronSim, CronSimError
from filelock import FileLock
from pydantic import ValidationError

from novad.config import BackboneSettings, LineSettings, Workspace, add_line, load_lines
from novad.config.settings import BUNDLED_CHECKPOINT
from novad.errors import ConfigError, ServiceError
from novad.images import discover
from novad.pipeline.locks import line_locks
from novad.pipeline.processes import child_environment

__all__ = ["NewLine", "add_product_line", "describe_lines"]


@dataclass(frozen=True)
class NewLine:
    """What ``novad line add`` was told; see there."""

    name: str
    data: Path
    layout: str
    backbone: str = "bundled"
    explainer: str = "bcos"
    image_size: int = 224
    anomaly_type: str = "sensory"
    schedule: str | None = None


def add_product_line(workspace: Workspace, new: NewLine) -> int:
    """Copy the images, track them with DVC, write the settings; nothing is left behind by a failure.

    Returns:
        Number of images that the layout finds.
    Raises:
        ConfigError: bad or existing name, missing folder, no images, unknown backbone or layout.
        ServiceError: DVC failed, or the hub cannot be reached.
    """
    target, tracked = workspace.root / "lines" / new.name, workspace.root / "lines" / f"{new.name}.dvc"
    with FileLock(_locks(workspace) / "params.lock"):
        _refuse_name(workspace, new.name)
        if not new.data.is_dir():
            raise ConfigError(f"{new.data}: no such folder of images")
        settings = _settings(workspace, new)
        images = len(discover(new.data, settings.layout))
        with line_locks(workspace, [new.name]):
            try:
                _copy(new.data, target)
                _dvc_add(workspace, target)
                add_line(workspace.params, new.name, settings)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                tracked.unlink(missing_ok=True)
                raise
    return images


def describe_lines(workspace: Workspace) -> list[dict[str, Any]]:
    """Every line with data digest, champion and challenger version, last run and next run."""
    from novad.tracking import champion_event, publications

    rows = []
    for name, settings in load_lines(workspace.params).items():
        published = publications(workspace, name)
        champion = champion_event(workspace, name)
        rows.append(
            {
                "line": name,
                "data": _data_digest(workspace, settings.data),
                "champion": champion.version if champion else None,
                "challenger": published[-1].version if published else None,
                "last_run": published[-1].published_at if published else None,
                "next_run": _next_run(settings.schedule),
            }
        )
    return rows


def _next_run(schedule: str | None) -> str | None:
    """When the line's schedule comes round next, UTC."""
    return None if schedule is None else next(CronSim(schedule, datetime.now(UTC))).isoformat()


def _locks(workspace: Workspace) -> Path:
    folder = workspace.state / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _refuse_name(workspace: Workspace, name: str) -> None:
    if name in load_lines(workspace.params):
        raise ConfigError(f"{workspace.params}: lines.{name}: this line exists already")
    LineName.check(workspace.params, name)


class LineName:
    """The rule for names, told as an error of ``params.yaml``."""

    @staticmethod
    def check(params: Path, name: str) -> None:
        """Raise ``ConfigError`` unless ``name`` may name a line."""
        import re

        from novad.config.settings import LINE_NAME

        if not re.fullmatch(LINE_NAME, name):
            raise ConfigError(
                f"{params}: lines.{name}: a line name is 1 to 63 lower-case letters, digits or '-', "
                "beginning with a letter or digit"
            )


def _settings(workspace: Workspace, new: NewLine) -> LineSettings:
    if new.schedule is not None:
        _check_cron(new.schedule)
    bundled = _bundled(workspace, new.image_size)
    own = _backbone(workspace, new.backbone, new.image_size)
    try:
        return LineSettings.model_validate(
            {
                "data": f"lines/{new.name}",
                "layout": new.layout,
                "anomaly_type": new.anomaly_type,
                "schedule": new.schedule,
                "backbone": own,
                "explainer": {
                    "method": new.explainer,
                    "backbone": bundled if new.explainer == "bcos" else own,
                },
            }
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{new.name}: {key}: {first['msg']}") from None


def _bundled(workspace: Workspace, image_size: int) -> dict[str, Any]:
    return _checkpoint(workspace, workspace.path(BUNDLED_CHECKPOINT), BUNDLED_CHECKPOINT, image_size)


def _backbone(workspace: Workspace, spec: str, image_size: int) -> dict[str, Any]:
    """Settings of ``bundled``, ``timm:NAME`` or a checkpoint's path."""
    if spec == "bundled":
        return _bundled(workspace, image_size)
    if spec.startswith("timm:"):
        from novad.vision.hub import download

        path = download(spec.removeprefix("timm:"), workspace.root / "weights")
    else:
        path = Path(spec).expanduser().absolute()
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such backbone checkpoint; --backbone takes bundled, timm:NAME or a path"
        )
    if not path.is_relative_to(workspace.root):
        path = _kept(path, workspace.root / "weights")
    return _checkpoint(workspace, path, path.relative_to(workspace.root).as_posix(), image_size)


def _kept(path: Path, folder: Path) -> Path:
    """A copy of a checkpoint from elsewhere, so that the line does not hang on a file outside."""
    from novad.vision.backbones import file_sha256

    folder.mkdir(exist_ok=True)
    kept = folder / path.name
    if kept.exists() and file_sha256(kept) != file_sha256(path):
        kept = folder / f"{path.stem}-{file_sha256(path)[:12]}{path.suffix}"
    if not kept.exists():
        partial = kept.with_name(f".{kept.name}.partial")
        shutil.copyfile(path, partial)
        partial.replace(kept)
    return kept


def _checkpoint(workspace: Workspace, path: Path, told: str, image_size: int) -> dict[str, Any]:
    from novad.vision.backbones import describe_checkpoint

    architecture, sha256 = describe_checkpoint(path)
    try:
        found = BackboneSettings(
            architecture=architecture, checkpoint=told, sha256=sha256, image_size=image_size
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"backbone.{first['loc'][0]}: {first['msg']}") from None
    return found.model_dump(mode="json")


def _check_cron(schedule: str) -> None:
    try:
        CronSim(schedule, datetime.now(UTC))
    except CronSimError:
        raise ConfigError(f"--schedule: '{schedule}' is not a cron expression (like '0 3 * * 1')") from None


def _copy(source: Path, target: Path) -> None:
    """Copy the images beside their place and move them in whole; links stay links for the gate to judge."""
    fresh = target.with_name(f".{target.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    shutil.copytree(source, fresh, symlinks=True)
    fresh.rename(target)


def _dvc_add(workspace: Workspace, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "add", "--quiet", str(folder.relative_to(workspace.root))],
        cwd=workspace.root, env=child_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ServiceError(f"dvc add {folder} failed: {(done.stderr or done.stdout)[-500:]}")


def _data_digest(workspace: Workspace, data: str) -> str | None:
    """Short DVC digest of the tracked folder that holds a line's images."""
    from ruamel.yaml import YAML

    tracked = workspace.root / f"{data}.dvc"
    whole = tracked if tracked.is_file() else workspace.root / f"{Path(data).parts[0]}.dvc"
    if not whole.is_file():
        return None
    return str(YAML(typ="safe").load(whole.read_text("utf-8"))["outs"][0]["md5"])[:12]
