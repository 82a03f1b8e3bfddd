"""What the benchmarks measure on: real images and a network."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.report import MissingInput
from novad.config import BackboneSettings, Workspace
from novad.config.settings import BUNDLED_CHECKPOINT, MemoryBankSettings, ValidateSettings
from novad.images import decode_image, decode_mask, discover
from novad.pipeline.checkpoints import bundled
from novad.stages.guarded_bank import fit_bank
from novad.stages.line import Line
from novad.vision.backbones import Backbone, describe_checkpoint, load_backbone
from novad.vision.familiarity import feature_grids
from novad.vision.memory_bank import MemoryBank
from novad.vision.patch_store import store_patches
from novad.vision.preprocess import to_batch

__all__ = [
    "Request",
    "bundled_backbone",
    "bundled_settings",
    "default_bank",
    "fastest",
    "image_files",
    "read",
    "read_mask",
    "requested_backbone",
    "rows_of_lines",
    "trained_lines",
    "whitened_patches",
]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    data: Path
    checkpoint: Path | None
    images: int
    coreset_images: int
    scored: int
    size: int
    artifacts: Path
    repeats: int
    anomalib: Path | None = None
    methods: tuple[str, ...] = ()
    minutes: int = 0
    batch: int = 8
    lines: tuple[str, ...] = ()


def trained_lines(request: Request) -> list[Line]:
    """Every line under ``--artifacts`` that was trained up to its explainer calibration.

    Raises:
        MissingInput: there is none.
    """
    found = sorted(
        path.parents[1].name for path in request.artifacts.glob("*/calibrate_explainer/scores.parquet")
    )
    if not found:
        raise MissingInput(
            f"no trained line in {request.artifacts}; train one, or name a folder by --artifacts"
        )
    return [Line.open(Workspace(request.artifacts.parent), name) for name in found]


def rows_of_lines(
    request: Request, rows: Callable[[Line], Iterable[dict[str, Any]]], needed: str
) -> list[dict[str, Any]]:
    """Rows of a table, of every trained line that gives some.

    Raises:
        MissingInput: there is no trained line, or none that has what is ``needed``.
    """
    found = [row for line in trained_lines(request) for row in rows(line)]
    if not found:
        raise MissingInput(f"no line in {request.artifacts} has {needed}")
    return found


def image_files(request: Request, most: int) -> list[Path]:
    """At most ``most`` training images of the data folder (0: all), spread evenly over it.

    Raises:
        MissingInput: there is no such folder.
        ConfigError: it is not in MVTec layout.
    """
    if not request.data.is_dir():
        raise MissingInput(f"no images at {request.data}; name a folder in MVTec layout with --data")
    files = [request.data / each.path for each in discover(request.data, "mvtec") if each.source == "train"]
    wanted = min(most or len(files), len(files))
    return [files[number * len(files) // wanted] for number in range(wanted)]


def read(path: Path) -> Any:
    """One decoded image (H, W, 3), by the limits of a line's default settings."""
    return decode_image(path, ValidateSettings().max_pixels)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """One decoded mask (H, W), by the same limits."""
    return decode_mask(path, ValidateSettings().max_pixels)


def requested_backbone(request: Request, layers: tuple[str, ...] = ()) -> Backbone:
    """The network that ``--checkpoint`` names, else the bundled one; its own choice of layers when empty."""
    return _loaded(request.checkpoint or ROOT / BUNDLED_CHECKPOINT, layers)


def bundled_backbone() -> Backbone:
    """The B-cos network that ships with novad."""
    return _loaded(ROOT / BUNDLED_CHECKPOINT)


def bundled_settings(size: int, tile: int = 0) -> BackboneSettings:
    """Of a line that uses the network that ships with novad, wherever its workspace is."""
    settings = bundled(Workspace(ROOT), size, tile).settings
    return settings.model_copy(update={"checkpoint": str(ROOT / BUNDLED_CHECKPOINT)})


def _loaded(checkpoint: Path, layers: tuple[str, ...] = ()) -> Backbone:
    architecture, sha256 = describe_checkpoint(checkpoint)
    return load_backbone(architecture, checkpoint, sha256, layers)


def default_bank(grids: Iterable[Tensor], images: int) -> MemoryBank:
    """A bank of so many images, by a line's default settings."""
    return fit_bank(grids, images, MemoryBankSettings()).bank


def whitened_patches(request: Request, files: list[Path], settings: MemoryBankSettings) -> Tensor:
    """(n, D) patches of these images in half precision, as the memory bank sees them."""
    backbone = requested_backbone(request)
    grids = (_grid(backbone, read(path), request.size) for path in files)
    store = store_patches(grids, len(files), settings.max_patches)
    return store.whitened(store.whitening(settings.dimensions, settings.whiten))


def _grid(backbone: Backbone, image: NDArray[np.uint8], size: int) -> Tensor:
    with torch.inference_mode():
        return feature_grids(backbone(to_batch([image], size)), "sensory")[0]


def fastest(
    actions: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds of each action: the fastest of ``repeats`` rounds in which all take their turn.

    Turns spread what else the machine does over all of them, and the fastest is the least disturbed.
    """
    seconds = dict.fromkeys(actions, float("inf"))
    for _ in range(repeats):
        for name, action in actions.items():
            started = clock()
            action()
            seconds[name] = min(seconds[name], clock() - started)
    return seconds
