"""Adding a product line: its images into the workspace, its settings into ``params.yaml``, all or nothing."""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from pydantic import ValidationError

from novad.config import (
    BackboneSettings,
    LineSettings,
    Workspace,
    add_line,
    ensure_lines,
    load_lines,
    wrong_option,
)
from novad.config.settings import LINE_NAME
from novad.errors import ConfigError, ServiceError
from novad.images import discover
from novad.images.layouts import Sample, keep_visa_split
from novad.images.proportions import in_proportion
from novad.pipeline.checkpoints import Checkpoint, bundled, choose
from novad.pipeline.importing import copy_images
from novad.pipeline.line_runs import LineRuns, line_runs, next_by_schedule
from novad.pipeline.locks import line_locks
from novad.pipeline.tracked_data import data_digest, track, tracking_file

if TYPE_CHECKING:
    from novad.tracking import Publication

__all__ = ["Added", "NewLine", "add_product_line", "describe_lines"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewLine:
    """What ``novad line add`` was told; see there."""

    name: str
    data: Path
    layout: str
    backbone: str = "bundled"
    explainer: str = "bcos"
    image_size: int | str = 224
    tile: int = 0
    anomaly_type: str = "sensory"
    schedule: str | None = None


@dataclass(frozen=True)
class Added:
    """A line that was added: how many images its layout finds, and the size of the network's input."""

    images: int
    image_size: int | str


def add_product_line(workspace: Workspace, new: NewLine) -> Added:
    """Copy the images, track them with DVC, write the settings; a failure or a kill leaves nothing behind.

    Raises:
        ConfigError: bad or existing name, missing folder, no images, unknown backbone or layout.
        RefusedError: the images lie elsewhere, behind symbolic links.
        ServiceError: DVC failed, or the hub cannot be reached.
    """
    lines = workspace.root / "lines"
    locks = workspace.state / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "params.lock"):
        _clear_leftovers(workspace)
        _check_name(workspace, new.name)
        settings = _settings(new)
        images = _images(new, lines / new.name)
        size = in_proportion(new.image_size, new.data, images, tiled=new.tile > 0)
        new = replace(new, image_size=size)
        backbone, explained = _backbones(workspace, new)
        settings = settings.model_copy(
            update={
                "backbone": backbone.settings,
                "explainer": settings.explainer.model_copy(update={"backbone": explained.settings}),
            }
        )
        with line_locks(workspace, [new.name]), _all_or_nothing(workspace, new.name, backbone):
            backbone.keep(workspace)
            partial = lines / f".{new.name}.partial"
            copy_images(new.data, partial)
            if new.layout == "visa":
                keep_visa_split(new.data, partial)
            partial.rename(lines / new.name)
            ensure_lines(workspace.params)
            track(workspace, lines / new.name)
            add_line(workspace.params, new.name, settings)
    return Added(len(images), settings.backbone.image_size)


def describe_lines(workspace: Workspace) -> list[dict[str, Any]]:
    """Every line with data digest, champion, newest version, last run and next run.

    Raises:
        ConfigError: a wrong setting; names file and key.
        ServiceError: the tracking store cannot be reached.
    """
    from novad.tracking import champion_event, publications

    try:
        deployed = line_runs(workspace)
    except ServiceError as error:
        _LOG.warning("%s; last and next runs are told without it", error)
        deployed = {}
    rows = []
    for name, settings in load_lines(workspace.params).items():
        published = publications(workspace, name)
        champion = champion_event(workspace, name)
        rows.append(
            {
                "line": name,
                "data": data_digest(tracking_file(workspace, workspace.path(settings.data))),
                "champion": champion.version if champion else None,
                "newest": published[-1].version if published else None,
                **_runs(deployed.get(name), published, settings),
            }
        )
    return rows


def _runs(
    deployed: LineRuns | None, published: "list[Publication]", settings: LineSettings
) -> dict[str, str | None]:
    """Last and next run as Prefect knows them; of a line that is not deployed, what the files say."""
    if deployed is not None and deployed.last_run is not None:
        last = {
            "last_run": deployed.last_run,
            "last_state": deployed.last_state,
            "last_reason": deployed.last_reason,
        }
    else:
        at = published[-1].published_at if published else None
        last = {"last_run": at, "last_state": None, "last_reason": None}
    return last | {"next_run": deployed.next_run if deployed else next_by_schedule(settings.schedule)}


def _check_name(workspace: Workspace, name: str) -> None:
    if not re.fullmatch(LINE_NAME, name):
        raise ConfigError(
            f"{name!r}: a line name is 1 to 63 lower-case letters, digits or '-', beginning with a letter or "
            "digit"
        )
    if name in load_lines(workspace.params):
        raise ConfigError(f"{workspace.params}: lines.{name}: this line exists already")
    for taken in (workspace.root / "lines" / name, workspace.root / "lines" / f"{name}.dvc"):
        if taken.exists():
            raise ConfigError(f"{taken}: exists and belongs to no line; move it away or choose another name")


def _settings(new: NewLine) -> LineSettings:
    """Settings with no backbone yet: what is cheap to refuse is refused before anything is downloaded."""
    unknown = {"sha256": "0" * 64}
    try:
        return LineSettings.model_validate(
            {
                "data": f"lines/{new.name}",
                "layout": new.layout,
                "anomaly_type": new.anomaly_type,
                "schedule": new.schedule,
                "backbone": unknown,
                "explainer": {"method": new.explainer, "backbone": unknown},
            }
        )
    except ValidationError as error:
        raise wrong_option(error) from None


def _images(new: NewLine, target: Path) -> list[Sample]:
    if not new.data.is_dir():
        raise ConfigError(f"--data: {new.data}: no such folder of images")
    if target.resolve().is_relative_to(new.data.resolve()):
        raise ConfigError(f"--data: {new.data}: holds the workspace's own lines; name the folder of one line")
    images = discover(new.data, new.layout)
    if not images:
        raise ConfigError(f"--data: {new.data}: the layout '{new.layout}' finds no image here")
    return images


def _backbones(workspace: Workspace, new: NewLine) -> tuple[Checkpoint, Checkpoint]:
    """The network that gives features, and the one that is explained.

    Only B-cos networks explain themselves completely; beside another backbone the bundled one is explained,
    unless a Captum method is asked for.
    """
    own = choose(workspace, new.backbone, new.image_size, new.tile)
    if new.explainer == "bcos":
        return own, own if own.exact else bundled(workspace, new.image_size, new.tile)
    _try_out(new.explainer, own.settings, own.source or workspace.path(own.settings.checkpoint))
    return own, own


def _try_out(explainer: str, settings: BackboneSettings, checkpoint: Path) -> None:
    """Let a method refuse a network now and not in training."""
    from novad.vision.backbones import load_backbone
    from novad.vision.explainers import build_explainer

    build_explainer(explainer, load_backbone(settings.architecture, checkpoint, settings.sha256))


@contextmanager
def _all_or_nothing(workspace: Workspace, name: str, backbone: Checkpoint) -> Iterator[None]:
    """Note what is about to appear, so that it can be taken away again, by the next call if need be."""
    lines = workspace.root / "lines"
    lines.mkdir(exist_ok=True)
    ignored = lines / ".gitignore"
    note = lines / f".{name}.adding"
    known = {
        "gitignore": ignored.read_text("utf-8") if ignored.is_file() else None,
        "checkpoint": backbone.settings.checkpoint if backbone.source is not None else None,
    }
    note.write_text(json.dumps(known), "utf-8")
    try:
        yield
    except BaseException:
        _undo(workspace, name, known)
        note.unlink(missing_ok=True)
        raise
    note.unlink()


def _clear_leftovers(workspace: Workspace) -> None:
    """Take away what killed calls left; a call that wrote its settings had finished."""
    finished = load_lines(workspace.params)
    for note in (workspace.root / "lines").glob(".*.adding"):
        name = note.name.removeprefix(".").removesuffix(".adding")
        if name not in finished:
            _undo(workspace, name, _noted(note))
        note.unlink()


def _noted(note: Path) -> dict[str, str | None]:
    """A kill while the note was written leaves it empty, and nothing else."""
    try:
        return dict(json.loads(note.read_text("utf-8")))
    except ValueError:
        return {}


def _undo(workspace: Workspace, name: str, known: dict[str, str | None]) -> None:
    lines = workspace.root / "lines"
    shutil.rmtree(lines / f".{name}.partial", ignore_errors=True)
    shutil.rmtree(lines / name, ignore_errors=True)
    (lines / f"{name}.dvc").unlink(missing_ok=True)
    ignored = lines / ".gitignore"
    if "gitignore" in known:
        if known["gitignore"] is None:
            ignored.unlink(missing_ok=True)
        else:
            ignored.write_text(known["gitignore"], "utf-8")
    if checkpoint := known.get("checkpoint"):
        kept = workspace.path(checkpoint)
        kept.unlink(missing_ok=True)
        kept.with_name(f".{kept.name}.partial").unlink(missing_ok=True)
