"""A line that is really trained, but small and with an untrained network: good enough to be served."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from novad.config import BackboneSettings, LineSettings, Workspace, add_line
from novad.config.settings import BUNDLED_CHECKPOINT
from novad.images.demo import make_demo_line
from novad.pipeline.checkpoints import bundled
from novad.pipeline.tracked_data import track
from novad.stages import calibrate_explainer, evaluate, memory_bank, tune_fusion, validate
from novad.tracking import promote, publish
from novad.vision.backbones import file_sha256
from novad.vision.bcos_network import ARCHITECTURE, build_bcos_network
from tables_once import made_once

__all__ = [
    "LINE",
    "STAGES",
    "bundled_line_settings",
    "network_settings",
    "small_line",
    "small_plant",
    "split_images",
    "train_again",
    "untrained_line",
]

LINE = "brushed-metal"
Splits = tuple[tuple[str, int, int], ...]
STAGES = (validate, memory_bank, calibrate_explainer, tune_fusion, evaluate)
_REPOSITORY = Path(__file__).resolve().parents[1]


@contextmanager
def small_line(
    root: Path, empty_database: Path, *, train: int, test_good: int, per_defect: int, **changed: Any
) -> Iterator[Workspace]:
    """A workspace in ``root`` whose line is trained and published as version 1, in the embedded store."""
    (root / ".novad").mkdir()
    shutil.copyfile(empty_database, root / ".novad/mlflow.db")
    workspace = untrained_line(root, train=train, test_good=test_good, per_defect=per_defect, **changed)
    with pytest.MonkeyPatch.context() as patched:
        for name in ("MLFLOW_TRACKING_URI", "NOVAD_DATABASE_URI"):
            patched.delenv(name, raising=False)
        _train_once(workspace, empty_database.parent, STAGES)
        publish(workspace, LINE)
        yield workspace


@contextmanager
def small_plant(root: Path, empty_database: Path, *, train: int, **changed: Any) -> Iterator[Workspace]:
    """A small line, tracked by DVC, in the workspace of the commands; its version 1 is champion."""
    with (
        small_line(root, empty_database, train=train, test_good=4, per_defect=2, **changed) as workspace,
        pytest.MonkeyPatch.context() as patched,
    ):
        (root / ".dvc").mkdir()
        (root / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
        track(workspace, root / "data")
        # Gates are not what is tested with it.
        patched.setattr("novad.tracking.registry.gate", lambda *_: [])
        promote(workspace, LINE, 1, "ada", "first")
        patched.setenv("NOVAD_WORKSPACE", str(root))
        yield workspace


def untrained_line(root: Path, *, train: int, test_good: int, per_defect: int, **changed: Any) -> Workspace:
    """A workspace in ``root`` with the line's images and settings, but for the sections ``changed``."""
    (root / "mlflow").symlink_to(_REPOSITORY / "mlflow")
    (root / "params.yaml").write_text("lines: {}\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    make_demo_line(LINE, root / "data" / LINE, train=train, test_good=test_good, per_defect=per_defect)
    workspace = Workspace(root)
    add_line(workspace.params, LINE, _settings(root, changed))
    return workspace


def train_again(workspace: Workspace, empty_database: Path, before: str, after: str) -> None:
    """Publish a further version that scores otherwise: its settings have ``after`` in place of ``before``."""
    text = workspace.params.read_text()
    assert before in text
    workspace.params.write_text(text.replace(before, after))
    _train_once(workspace, empty_database.parent, STAGES[1:])
    publish(workspace, LINE)


def _train_once(workspace: Workspace, of_run: Path, stages: Sequence[ModuleType]) -> None:
    """Run the stages, or copy what another test of this run got from the same settings and images."""
    trained, images = workspace.artifacts(LINE, ""), sorted((workspace.root / "data").rglob("*.png"))
    given = hashlib.sha256()
    for path in (workspace.params, *trained.glob("validate/manifest.parquet"), *images):
        given.update(f"{path.relative_to(workspace.root)} {file_sha256(path)}\n".encode())

    def train(unfinished: Path) -> None:
        for stage in stages:
            stage.run(workspace, LINE)
        trained.rename(unfinished)

    kept = made_once(of_run / f"trained-{given.hexdigest()}", train)
    shutil.rmtree(trained, ignore_errors=True)
    shutil.copytree(kept, trained)


def bundled_line_settings(image_size: int, **changed: Any) -> LineSettings:
    """Of a line in ``images`` whose features and explanations are the shipped network's."""
    shipped = {
        "checkpoint": str(_REPOSITORY / BUNDLED_CHECKPOINT),
        "layers": tuple(changed.pop("layers", ())),
    }
    network = bundled(Workspace(_REPOSITORY), image_size).settings.model_copy(update=shipped)
    told = {"data": "images", "layout": "mvtec", "backbone": network, "explainer": {"backbone": network}}
    return LineSettings.model_validate({**told, **changed})


def split_images(
    root: Path, counts: Splits, draw: Callable[[bool], np.ndarray]
) -> tuple[Workspace, pd.DataFrame]:
    """Images that ``draw`` makes, anomalous or not, in ``root/images``, and their manifest."""
    (root / "images").mkdir()
    rows = []
    for split, label, count in counts:
        for number in range(count):
            name = f"{split}-{label}-{number}.png"
            Image.fromarray(draw(label == 1)).save(root / "images" / name)
            rows.append({"path": name, "split": split, "label": label, "sha256": name})
    return Workspace(root), pd.DataFrame(rows)


def network_settings(root: Path) -> BackboneSettings:
    """The bundled architecture, untrained, saved in ``root``."""
    torch.manual_seed(0)
    weights = {
        name: tensor.contiguous()
        for name, tensor in build_bcos_network().state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    save_file(weights, root / "network.safetensors", metadata={"novad": ARCHITECTURE})
    return BackboneSettings(
        checkpoint="network.safetensors", sha256=file_sha256(root / "network.safetensors"), image_size=64
    )


def _settings(root: Path, changed: dict[str, Any]) -> LineSettings:
    backbone = network_settings(root)
    return LineSettings.model_validate(
        {
            "data": f"data/{LINE}",
            "layout": "mvtec",
            "validate": {"min_normals": 10},
            "backbone": backbone,
            "memory_bank": {"min_vectors": 50},
            "explainer": {"backbone": backbone},
            "evaluate": {"bootstrap": 20, "heatmaps": 2},
            **changed,
        }
    )
