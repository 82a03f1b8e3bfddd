"""A line whose long images go through the network in tiles is trained as one that takes them whole."""

import numpy as np
import pandas as pd
import pytest

from novad.config import LineSettings, Workspace, add_line
from novad.images.demo import make_demo_line
from novad.stages import calibrate_explainer, evaluate, memory_bank, tune_fusion, validate
from novad.vision import Detector
from small_line import network_settings

LINE = "woven-fabric"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("tiled")
    (root / "params.yaml").write_text("lines: {}\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    make_demo_line(LINE, root / "data", train=12, test_good=6, per_defect=1)
    workspace = Workspace(root)
    network = network_settings(root)
    for name, tile in (("whole", 0), ("tiled", 32)):
        backbone = network.model_copy(update={"image_size": "96x64", "tile": tile})
        settings = {
            "data": "data",
            "layout": "mvtec",
            "validate": {"min_normals": 10},
            "backbone": backbone,
            "memory_bank": {"min_vectors": 50},
            "explainer": {"backbone": backbone},
            "calibrate_explainer": {"targets": ["layer2"], "smoothing": [2.0]},
            "evaluate": {"bootstrap": 20, "heatmaps": 0},
        }
        add_line(workspace.params, name, LineSettings.model_validate(settings))
        for stage in (validate, memory_bank, calibrate_explainer, tune_fusion, evaluate):
            stage.run(workspace, name)
    return workspace


def test_tiles_change_no_score(workspace: Workspace) -> None:
    tiled, whole = (
        pd.read_parquet(workspace.artifacts(name, "evaluate") / "scores.parquet")
        for name in ("tiled", "whole")
    )
    for kind in ("familiarity", "novelty", "hybrid"):
        assert np.corrcoef(tiled[kind], whole[kind])[0, 1] > 0.999


def test_the_saved_detector_scores_by_tiles(workspace: Workspace) -> None:
    tiled, whole = (
        Detector.load(workspace.artifacts(name, "evaluate") / "detector") for name in ("tiled", "whole")
    )
    assert tiled.image_size == whole.image_size == (64, 96)
    assert tiled.familiarity.backbone.tiling is not None
    assert tiled.familiarity.backbone.tiling.side == 32
    assert tiled.novelty.explainer.backbone is tiled.familiarity.backbone
    assert whole.familiarity.backbone.tiling is None
