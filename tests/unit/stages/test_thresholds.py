"""Good parts of the tuning split bear the threshold out, or it is told that they do not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from novad.config import BackboneSettings, LineSettings, Workspace, add_line
from novad.config.settings import ExplainerSettings
from novad.stages import tune_fusion
from novad.stages.runner import read_json

LINE, CALIBRATION, TUNING, ANOMALIES = "plates", 39, 20, 10


def tuned(root: Path, shift: float) -> dict[str, object]:
    """The check, of tuning normals that score ``shift`` standard deviations more than calibration normals."""
    (root / "params.yaml").write_text("lines: {}\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    workspace, random = Workspace(root), np.random.default_rng(3)
    backbone = BackboneSettings(sha256="0" * 64)
    add_line(
        workspace.params,
        LINE,
        LineSettings(
            data="data", layout="mvtec", backbone=backbone, explainer=ExplainerSettings(backbone=backbone)
        ),
    )
    before = workspace.artifacts(LINE, "calibrate_explainer")
    before.mkdir(parents=True)
    counts = (CALIBRATION, TUNING, ANOMALIES)
    rows = pd.DataFrame(
        {
            "label": np.repeat([0, 0, 1], counts),
            "split": np.repeat(["calibration", "tuning", "tuning"], counts),
        }
    )
    moved = np.repeat([0, shift, 4], counts)
    for kind in ("familiarity", "novelty"):
        rows[kind] = random.normal(size=len(rows)) + moved
    rows.to_parquet(before / "scores.parquet", index=False)
    maps = torch.rand(CALIBRATION, 4, 4, generator=torch.Generator().manual_seed(0))
    save_file({"normal.familiarity": maps, "normal.novelty": maps.clone()}, before / "maps.safetensors")
    tune_fusion.run(workspace, LINE)
    check: dict[str, object] = read_json(workspace.artifacts(LINE, "tune_fusion") / "fusion.json")[
        "tuning_check"
    ]
    return check


def test_parts_like_those_that_the_threshold_comes_from_bear_it_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = tuned(tmp_path, 0.0)
    assert check["normals"] == TUNING
    assert check["p_value"] >= tune_fusion.UNLIKELY
    assert tune_fusion.broken_promise(check) is None
    assert "tuning split fail" not in capsys.readouterr().err


def test_parts_that_look_otherwise_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check = tuned(tmp_path, 2.0)
    assert check["failed"] > TUNING // 2
    assert check["p_value"] < 1e-3
    told = capsys.readouterr().err
    assert f"{check['failed']} of {TUNING} good parts of the tuning split fail" in told
    assert told.startswith(f"thresholds of {LINE}: ")
