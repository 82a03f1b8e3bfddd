"""Another environment's method: what it is asked, and that its failures become reasons."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from novad.benchmarking import anomalib_runs
from novad.benchmarking.anomalib_runs import METHODS, Anomalib, EfficientAdFiles, find_anomalib, run_method
from novad.config import LineSettings, Workspace
from novad.errors import ConfigError
from novad.stages.line import Line

WEIGHTS = {"architecture": "mobilenetv2_100", "checkpoint": "net.safetensors", "layers": ["blocks.2"]}
SPLITS = ["bank", "bank", "calibration", "tuning", "tuning", "test", "test", "test"]
GIVES = """
import json, sys
from pathlib import Path
import numpy as np
told = json.loads(Path(sys.argv[1]).read_text())
out = Path(told["out"])
count = len(told["judged"])
np.savez(out / "scores.npz", scores=np.arange(count) {change})
if told["maps"]:
    np.save(out / "maps.npy", np.zeros((count, *told["size"]), np.float32))
(out / "result.json").write_text(json.dumps({{"fit_seconds": 1, "ms_per_image": 2, "peak_rss_mb": 3}}))
"""

MakeScript = Callable[[str], Anomalib]


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """Eight images of all splits, the last of them a defect with a mask."""
    network = {"sha256": "0" * 64, "image_size": 32}
    settings = LineSettings.model_validate(
        {
            "data": "images",
            "layout": "mvtec",
            "seed": 7,
            "backbone": network,
            "explainer": {"backbone": network},
        }
    )
    paths = [f"{split}/{number}.png" for number, split in enumerate(SPLITS)]
    masks = [None] * 7 + ["masks/7.png"]
    manifest = pd.DataFrame({"path": paths, "split": SPLITS, "mask_path": masks})
    return Line(Workspace(tmp_path), "bench", settings, manifest)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeScript:
    """Put a program in the place of the real one."""

    def make(source: str, timeout: float = 60) -> Anomalib:
        path = tmp_path / "script.py"
        path.write_text(source, "utf-8")
        monkeypatch.setattr(anomalib_runs, "SCRIPT", path)
        return Anomalib(Path(sys.executable), "2.7.0", timeout)

    return make


def test_a_method_learns_from_all_training_normals_and_judges_the_test_split_alone(
    script: MakeScript, line: Line, tmp_path: Path
) -> None:
    run = run_method(script(GIVES.format(change="")), "padim", line, WEIGHTS, tmp_path / "padim")
    assert run.reason is None
    assert run.scores is not None
    assert run.maps is not None
    assert run.scores.tolist() == [0, 1, 2]
    assert run.maps.shape == (3, 32, 32)
    assert run.cost == {"fit_seconds": 1, "ms_per_image": 2, "peak_rss_mb": 3}
    asked = json.loads((tmp_path / "padim/request.json").read_text())
    images = tmp_path / "images"
    assert asked["train"] == [str(images / line.manifest["path"][place]) for place in (0, 1, 2)]
    assert asked["judged"] == [str(images / line.manifest["path"][place]) for place in (5, 6, 7)]
    assert asked["size"] == [32, 32]
    assert (asked["seed"], asked["coreset_share"], asked["weights"]) == (7, 0.01, WEIGHTS)


def test_maps_are_not_asked_for_where_no_defect_has_a_mask(
    script: MakeScript, line: Line, tmp_path: Path
) -> None:
    line.manifest["mask_path"] = None
    run = run_method(script(GIVES.format(change="")), "dfm", line, WEIGHTS, tmp_path / "dfm")
    assert (run.reason, run.maps) == (None, None)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise ValueError('the weights are odd')", "failed: ValueError: the weights are odd"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("import time; time.sleep(60)", "did not finish in 1 s"),
        (GIVES.format(change="[:2]"), "2 scores for 3 images"),
        (GIVES.format(change="/ [1, 0, 1] * np.nan"), "test/5.png: its score is not finite"),
    ],
)
def test_a_method_that_fails_says_why(
    source: str, words: str, script: MakeScript, line: Line, tmp_path: Path
) -> None:
    anomalib = script(source, timeout=1 if "sleep" in source else 60)  # type: ignore[call-arg]
    run = run_method(anomalib, "patchcore", line, WEIGHTS, tmp_path / "run")
    assert words in str(run.reason)
    assert (run.scores, run.maps, run.cost) == (None, None, None)


@pytest.mark.parametrize("method", METHODS)
def test_without_an_environment_the_reason_says_how_to_make_one(
    method: str, line: Line, tmp_path: Path
) -> None:
    run = run_method(None, method, line, WEIGHTS, tmp_path / "run")
    assert "uv venv" in str(run.reason)
    assert "--anomalib" in str(run.reason)


def test_without_timm_weights_the_reason_names_the_option(line: Line, tmp_path: Path) -> None:
    anomalib = Anomalib(Path(sys.executable), "2.7.0", 60)
    assert "--anomalib-weights" in str(run_method(anomalib, "padim", line, None, tmp_path / "run").reason)


def test_efficientad_wants_its_files_and_no_other_weights(
    script: MakeScript, line: Line, tmp_path: Path
) -> None:
    without = script(GIVES.format(change=""))
    assert "--imagenette" in str(run_method(without, "efficientad", line, WEIGHTS, tmp_path / "a").reason)
    files = EfficientAdFiles(tmp_path / "teacher.pth", tmp_path / "natural", 5)
    with_files = Anomalib(without.interpreter, without.version, 60, files)
    assert run_method(with_files, "efficientad", line, None, tmp_path / "b").reason is None
    asked = json.loads((tmp_path / "b/request.json").read_text())
    assert asked["efficientad"]["steps"] == 5


def test_an_interpreter_that_is_none_or_has_no_anomalib_is_named(tmp_path: Path) -> None:
    text = tmp_path / "python"
    text.write_text("no program")
    for path, words in (
        (tmp_path / "absent", "no such interpreter"),
        (tmp_path, "no such interpreter"),
        (text, "cannot be run"),
        (Path(sys.executable), "anomalib"),
    ):
        with pytest.raises(ConfigError, match=words) as found:
            find_anomalib(path, 60)
        assert str(path) in str(found.value)


def test_scores_keep_their_precision(script: MakeScript, line: Line, tmp_path: Path) -> None:
    run = run_method(script(GIVES.format(change="+ 1e-12")), "padim", line, WEIGHTS, tmp_path / "run")
    assert run.scores is not None
    assert run.scores.dtype == np.float64
    assert run.scores[0] == 1e-12
