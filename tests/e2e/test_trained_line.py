"""One small line from images to verdicts, through the commands that people use."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d

from novad.config import LineSettings, Workspace, add_line
from novad.config.settings import BUNDLED_ARCHITECTURE, BUNDLED_CHECKPOINT
from novad.evaluation.overlays import overlay
from novad.images import decode_image
from novad.images.demo import make_demo_line
from novad.pipeline.graph import stale_stages
from novad.stages.deviations import image_tensors
from novad.stages.line import Line
from novad.stages.map_weight import pixel_auroc
from novad.stages.thresholds import GoodParts
from novad.vision import Detector
from novad.vision.backbones import file_sha256
from novad.vision.models import raw_scores
from tiny_pipeline import prefect_tables

REPOSITORY = Path(__file__).parents[2]
LINE = "cloth"
DEFECTS = ("misweave", "slub")
KINDS = ("familiarity", "novelty", "hybrid")
LEARNING = ("memory_bank", "calibrate_explainer", "tune_fusion")
STAGES = ("validate", *LEARNING, "evaluate")
FIGURES = {
    "image_auroc", "image_aupr", "fnr_at_fpr_01", "fnr_at_fpr_05", "f1",
    "pixel_auroc", "aupro", "aupimo", "ci95",
}  # fmt: skip

pytestmark = pytest.mark.slow


def novad(workspace: Workspace, *arguments: str, code: int = 0) -> Any:
    """Run the command with ``--json``; its document."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "PREFECT"))
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("novad"), *arguments, "--json"],
        cwd=workspace.root, env=environment, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, empty_prefect: Path) -> Workspace:
    """A workspace of its own, sources copied, with a part of a demo line, trained once."""
    root = tmp_path_factory.mktemp("plant")
    for name in ("flows", "mlflow"):
        shutil.copytree(REPOSITORY / name, root / name)
    shutil.copytree(
        REPOSITORY / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    for name in ("dvc.yaml", "requirements.lock", ".dvcignore"):
        shutil.copyfile(REPOSITORY / name, root / name)
    (root / "params.yaml").write_text("lines:\n")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=root, check=True)
    drawn = tmp_path_factory.mktemp("drawn")
    make_demo_line("woven-fabric", drawn, train=48, test_good=16, per_defect=10)
    target = root / "lines" / LINE
    defects = [f"{folder}/{defect}" for folder in ("test", "ground_truth") for defect in DEFECTS]
    for folder in ("train/good", "test/good", *defects):
        shutil.copytree(drawn / folder, target / folder)
    network = {
        "architecture": BUNDLED_ARCHITECTURE,
        "checkpoint": BUNDLED_CHECKPOINT,
        "sha256": file_sha256(REPOSITORY / BUNDLED_CHECKPOINT),
        "image_size": 128,
    }
    settings = LineSettings.model_validate(
        {
            "data": f"lines/{LINE}",
            "layout": "mvtec",
            "validate": {"calibration_share": 0.4, "tuning_share": 0.5},
            "backbone": network,
            "explainer": {"backbone": network},
            "memory_bank": {"min_vectors": 300},
            "calibrate_explainer": {
                "targets": ["layer1", "layer2"],
                "smoothing": [2.0],
                "top_shares": [0.002],
                "evidence_anomalies": 5,
            },
            "evaluate": {"bootstrap": 100, "heatmaps": 4},
        }
    )
    workspace = Workspace(root)
    add_line(workspace.params, LINE, settings)
    prefect_tables(workspace, empty_prefect, "0")
    shutil.copyfile(empty_database, workspace.state / "mlflow.db")
    told = novad(workspace, "train", LINE)
    assert [address.split("@")[0] for address in told["lines"][0]["ran"]] == list(STAGES)
    return workspace


def test_a_trained_line_leaves_the_files_of_the_contract(trained: Workspace) -> None:
    files = {
        "validate": ("manifest.parquet", "report.json", "docs/index.html"),
        "memory_bank": ("bank.safetensors", "bank.json"),
        "calibrate_explainer": ("calibration.safetensors", "candidates.json"),
        "tune_fusion": ("fusion.json",),
        "evaluate": ("metrics.json", "scores.parquet", "detector/detector.json"),
    }
    for stage, names in files.items():
        for name in names:
            assert (trained.artifacts(LINE, stage) / name).is_file(), f"{stage}/{name}"
    assert len(list((trained.artifacts(LINE, "evaluate") / "heatmaps").glob("*.png"))) == 4
    assert len(list((trained.artifacts(LINE, "evaluate") / "plots").glob("*.png"))) == 4


def test_metrics_have_the_keys_of_the_contract_and_count_the_test_split(trained: Workspace) -> None:
    metrics = json.loads((trained.artifacts(LINE, "evaluate") / "metrics.json").read_text())
    scores = pd.read_parquet(trained.artifacts(LINE, "evaluate") / "scores.parquet")
    manifest = pd.read_parquet(trained.artifacts(LINE, "validate") / "manifest.parquet")
    for kind in KINDS:
        assert set(metrics["scores"][kind]) == FIGURES
        assert metrics["scores"][kind]["aupro"] is not None
    assert set(metrics["counts"]) == {"train", "calibration", "tuning", "test_normal", "test_anomalous"}
    assert {"at_fpr_01", "at_fpr_05"} <= set(metrics["false_negative_reduction"])
    assert {"seconds_per_stage", "score_ms_per_image", "bank_bytes", "peak_rss_mb"} == set(metrics["cost"])
    assert list(scores.columns) == [
        "path", "sha256", "split", "label", "defect_type",
        "familiarity", "novelty", "hybrid", "p_value", "decision",
    ]  # fmt: skip
    assert set(scores["split"]) == {"test"}
    assert set(scores["path"]) == set(manifest.loc[manifest["split"] == "test", "path"])
    assert metrics["counts"]["test_anomalous"] == int((scores["label"] == 1).sum()) == 10
    assert metrics["explanation"]["completeness_error_max"] < 1e-4
    on, near = (metrics["explanation"][name] for name in ("pointing_game", "pointing_game_near"))
    assert all(on[kind] <= near[kind] <= 1 for kind in KINDS)
    from sklearn.metrics import roc_auc_score

    for kind in KINDS:
        assert metrics["scores"][kind]["image_auroc"] == pytest.approx(
            roc_auc_score(scores["label"], scores[kind]), abs=1e-6
        )


def test_decisions_follow_from_scores_and_thresholds(trained: Workspace) -> None:
    scores = pd.read_parquet(trained.artifacts(LINE, "evaluate") / "scores.parquet")
    fusion = json.loads((trained.artifacts(LINE, "tune_fusion") / "fusion.json").read_text())
    told = fusion["thresholds"]
    hybrid = (1 - fusion["weight"]) * scores["familiarity"] + fusion["weight"] * scores["novelty"]
    assert np.allclose(hybrid, scores["hybrid"])
    expected = np.select([hybrid > told["fail"], hybrid > told["review"]], ["FAIL", "REVIEW"], "PASS")
    assert list(scores["decision"]) == list(expected)
    assert fusion["tuned_on"] == {
        "split": "tuning",
        "normals": len(_rows(trained, 0)),
        "normals_of": ["calibration", "tuning"],
        "anomalies": 10,
    }


def test_masks_teach_the_map_and_more_than_appearance_shows(trained: Workspace) -> None:
    told = json.loads((trained.artifacts(LINE, "calibrate_explainer") / "candidates.json").read_text())
    assert told["shown"]["target"] == "patches"
    assert told["map_ridge"] > 0
    detector = Detector.load(trained.artifacts(LINE, "evaluate") / "detector")
    assert detector.novelty.patches is not None
    untaught = replace(detector.novelty, shown=detector.novelty.judged[-1], patches=None)
    assert untaught.shown.target == "appearance"
    line = Line.open(trained, LINE)
    rows = line.rows("test")
    rows = rows[rows["label"] == 1]
    images = torch.cat(list(image_tensors(line, line.images(rows))))
    maps = [
        raw_scores(detector.familiarity, each, images).novelty_maps for each in (detector.novelty, untaught)
    ]
    side = tuple(maps[0].shape[-2:])
    masks = [torch.from_numpy(line.mask(row)).float()[None] for row in rows.itertuples()]
    defective = torch.cat([adaptive_avg_pool2d(mask, side) for mask in masks]) >= 0.25
    taught, before = (pixel_auroc(each, defective) for each in maps)
    assert taught > before > 0.5


def _rows(workspace: Workspace, label: int) -> pd.DataFrame:
    scores = pd.read_parquet(workspace.artifacts(LINE, "calibrate_explainer") / "scores.parquet")
    return scores[scores["label"] == label]


def test_a_second_training_does_nothing(trained: Workspace) -> None:
    again = novad(trained, "train", LINE)["lines"][0]
    assert again["unchanged"]
    assert again["ran"] == []


def _metrics(folder: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((folder / "evaluate" / "metrics.json").read_text())
    del metrics["cost"]
    return metrics


def test_labels_of_the_test_split_reach_nothing_but_the_evaluation(
    trained: Workspace, tmp_path: Path
) -> None:
    """Permuting them leaves every byte of the stages that learn as it was: they give the same twice."""
    other = Workspace(tmp_path / "permuted")
    for name in ("src", "lines", "artifacts"):
        shutil.copytree(trained.root / name, other.root / name)
    shutil.copyfile(trained.params, other.params)
    manifest = other.artifacts(LINE, "validate") / "manifest.parquet"
    rows = pd.read_parquet(manifest)
    labelled = ["label", "defect_type", "mask_path"]
    test = rows.index[rows["split"] == "test"]
    rows.loc[test, labelled] = rows.loc[test[::-1], labelled].to_numpy()
    rows.to_parquet(manifest)
    learnt = {stage: _digests(trained.artifacts(LINE, stage)) for stage in LEARNING}
    for stage in (*LEARNING, "evaluate"):
        importlib.import_module(f"novad.stages.{stage}").run(other, LINE)
    assert {stage: _digests(other.artifacts(LINE, stage)) for stage in LEARNING} == learnt
    figures = [_metrics(each.root / "artifacts" / LINE)["scores"] for each in (trained, other)]
    assert figures[0] != figures[1]


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.name: file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix and path.name != "cost.json"
    }


def stale(workspace: Workspace) -> set[str]:
    return {address.split("@")[0] for address in stale_stages(workspace, [LINE])}


@pytest.mark.parametrize(
    ("change", "concerned"),
    [
        (("params.yaml", "heatmaps: 4", "heatmaps: 5"), {"evaluate"}),
        (("params.yaml", "review_alpha: 0.1", "review_alpha: 0.2"), {"tune_fusion"}),
        (
            ("params.yaml", "coreset_share: 0.01", "coreset_share: 0.02"),
            {"memory_bank", "calibrate_explainer", "evaluate"},
        ),
        (("params.yaml", "min_normals: 20", "min_normals: 21"), {"validate"}),
        (("src/novad/evaluation/plots.py", '"""Plots', '"""The plots'), {"evaluate"}),
        (("src/novad/images/checks.py", '"""', '""" '), set(STAGES) - {"tune_fusion"}),
        (("src/novad/tracking/store.py", '"""', '""" '), set()),
    ],
)  # fmt: skip
def test_a_change_makes_exactly_its_stages_stale(
    trained: Workspace, change: tuple[str, str, str], concerned: set[str]
) -> None:
    assert stale(trained) == set()
    name, old, new = change
    path = trained.root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    try:
        assert stale(trained) == concerned
    finally:
        path.write_text(text)


def test_a_changed_image_makes_every_stage_that_reads_images_stale(trained: Workspace) -> None:
    path = next((trained.root / "lines" / LINE / "train" / "good").iterdir())
    content = path.read_bytes()
    path.unlink()
    Image.new("RGB", (192, 192), "grey").save(path)
    try:
        assert stale(trained) == {"validate", "memory_bank", "calibrate_explainer", "evaluate"}
    finally:
        path.write_bytes(content)


def test_scoring_writes_overlays_and_names_what_it_cannot_read(trained: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    shutil.copytree(trained.root / "lines" / LINE / "test" / "misweave", folder / "bad")
    shutil.copytree(trained.root / "lines" / LINE / "test" / "good", folder / "good")
    (folder / "good" / "broken.png").write_bytes(b"\x89PNG but not for long")
    told = novad(trained, "score", LINE, str(folder), "--heatmaps", str(tmp_path / "maps"), code=2)
    assert "broken.png" in json.dumps(told)
    rows = told["images"]
    assert len(rows) == 26
    assert len({row["heatmap"] for row in rows}) == 26
    assert all(Path(row["heatmap"]).is_file() for row in rows)
    evaluated = pd.read_parquet(trained.artifacts(LINE, "evaluate") / "scores.parquet").set_index("sha256")
    for row in rows:
        if row["sha256"] in evaluated.index:
            assert row["hybrid"] == pytest.approx(evaluated.loc[row["sha256"], "hybrid"], abs=1e-3)


def test_thresholds_are_measured_on_images_that_had_no_say(
    trained: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY)
    main = importlib.import_module("benchmarks.__main__").main
    monkeypatch.setattr(importlib.import_module("benchmarks.thresholds"), "DRAWS", 3)
    asked = ["--artifacts", str(trained.root / "artifacts"), "--results", str(tmp_path), "--threads", "1"]
    assert main(["thresholds", *asked]) == 0
    (row,) = json.loads((tmp_path / "thresholds.json").read_text())["rows"]
    calibration = len(_rows(trained, 0).query("split == 'calibration'"))
    assert (row["line"], row["calibration normals"]) == (LINE, calibration)
    assert row["promised, calibration normals"] == pytest.approx(max(0.05, 1 / (calibration + 1)))
    assert row["false alarms, novad"] <= row["false alarms, calibration normals"]
    assert row["missed, novad"] >= row["missed, calibration normals"]
    # Whoever sets thresholds, it is by them that the last columns judge.
    monkeypatch.setattr(GoodParts, "setters", property(_the_lowest))
    assert main(["thresholds", *asked]) == 0
    (other,) = json.loads((tmp_path / "thresholds.json").read_text())["rows"]
    assert other["promised, novad"] == pytest.approx(1 / 2)
    assert other["promised, calibration normals"] == row["promised, calibration normals"]
    assert other["missed, novad"] == 0 < row["missed, novad"]
    assert other["false alarms, novad"] > 0.5


def _the_lowest(parts: GoodParts) -> np.ndarray:
    """The good part of the lowest score alone."""
    scores = np.where(parts.calibration | parts.tuning, parts.hybrid, np.inf)
    return np.arange(len(scores)) == scores.argmin()


def test_a_good_part_below_the_map_threshold_does_not_glow(trained: Workspace) -> None:
    detector = Detector.load(trained.artifacts(LINE, "evaluate") / "detector")
    images = [
        decode_image(path, 10**7)
        for path in sorted((trained.root / "lines" / LINE / "test" / "good").iterdir())
    ]
    dark = 0
    for image, result in zip(images, detector.score(images), strict=True):
        heat, threshold = result.hybrid_map, detector.thresholds.map["hybrid"]
        glowing = (overlay(image, heat, threshold) != image).any(axis=2)
        assert not glowing[heat <= threshold].any()
        dark += not glowing.any()
    assert dark >= 0.8 * len(images)


def test_the_registered_model_judges_like_the_detector(trained: Workspace) -> None:
    path = sorted((trained.root / "lines" / LINE / "test" / "slub").iterdir())[0]
    code = (
        "import base64, pathlib, sys, mlflow, pandas\n"
        "from novad.garbage import spare_search\n"
        "spare_search()\n"
        "model = mlflow.pyfunc.load_model('models:/cloth@challenger')\n"
        "image = base64.b64encode(pathlib.Path(sys.argv[1]).read_bytes()).decode()\n"
        "frame = pandas.DataFrame({'image': [image]})\n"
        "print('RESULT' + model.predict(frame).to_json(orient='records'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{trained.state / 'mlflow.db'}"},
        cwd=trained.root, capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    told = json.loads(done.stdout.split("RESULT")[1])[0]
    detector = Detector.load(trained.artifacts(LINE, "evaluate") / "detector")
    expected = next(detector.score([decode_image(path, 10**7)]))
    assert told["hybrid"] == pytest.approx(expected.hybrid, abs=1e-4)
    assert told["decision"] == expected.decision
    assert told["digest"] == detector.digest


def test_benchmarks_of_trained_lines_open_no_test_image(
    trained: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY)
    main = importlib.import_module("benchmarks.__main__").main
    for name, few in (
        ("readings", {"VECTORS": (50, 200)}),
        ("few_anomalies", {"VECTORS": 200, "ANOMALIES": (5, 99), "DRAWS": 2}),
    ):
        for constant, value in few.items():
            monkeypatch.setattr(importlib.import_module(f"benchmarks.{name}"), constant, value)
    opened = set()
    images = Line.images
    monkeypatch.setattr(Line, "images", lambda line, rows: opened.update(rows["split"]) or images(line, rows))
    asked = ["--artifacts", str(trained.root / "artifacts"), "--results", str(tmp_path), "--threads", "1"]
    names = ("readings", "few_anomalies", "stem", "maps")
    assert main([*names, *asked]) == 0
    assert opened == {"bank", "calibration", "tuning"}
    rows, few, stem, maps = (json.loads((tmp_path / f"{name}.json").read_text())["rows"] for name in names)
    assert len(rows) == 5 * 2 * 2
    assert {row["vectors"] for row in rows if row["chosen"]} == {50, 200}
    assert all(0 <= row["AUROC"] <= 1 and 0 < row["AUPRO"] <= 1 for row in rows)
    assert [row["anomalies"] for row in few] == [5]
    assert few[0]["familiarity"] != few[0]["with evidence"]
    assert [row["layers"] for row in stem][1:] == ["pool", "pool"]
    assert stem[0]["standard errors"] is None
    alone = {row["map"].split(",")[0]: row["pixel AUROC"] for row in maps if not row["hybrid"]}
    assert set(alone) == {
        "familiarity",
        "appearance",
        *(f"learned from other {x}" for x in ("images", "types")),
    }
    assert alone["learned from other images"] > alone["appearance"]
    bank = json.loads((trained.artifacts(LINE, "memory_bank") / "bank.json").read_text())
    known = [row["auroc"] for row in bank["stem_choice"]]
    assert [row["AUROC of the hybrid"] for row in stem] == pytest.approx(known, abs=0.02)
