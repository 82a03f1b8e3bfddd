"""A workspace with the files that a trained line leaves, without having trained anything."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from novad.config import Workspace

REPOSITORY = Path(__file__).resolve().parents[1]

PARAMS = """\
lines:
  {line}:
    data: data/{line}
    layout: mvtec
    backbone: {{sha256: {digest}}}
    explainer:
      backbone: {{sha256: {digest}}}
"""

THRESHOLDS = {
    "fail": 1.5, "review": 1.25, "alpha": 0.05, "method": "conformal", "scores": {"hybrid": 1.5},
    "normals": 15, "normals_of": ["calibration"],
}  # fmt: skip

LOCK = """\
schema: '2.0'
stages:
  validate@{line}:
    cmd: exec python -m novad.stages.validate {line}
    deps:
    - {{path: data/{line}, hash: md5, md5: 0123456789abcdef0123456789abcdef.dir, size: 1, nfiles: 1}}
    outs:
    - {{path: artifacts/{line}/validate/report.json, hash: md5, md5: fedcba9876543210fedcba9876543210}}
"""


def make_workspace(root: Path, *lines: str) -> Workspace:
    """A workspace whose ``lines`` look trained."""
    root.mkdir(parents=True, exist_ok=True)
    body = "".join(PARAMS.format(line=line, digest="ab" * 32).removeprefix("lines:\n") for line in lines)
    (root / "params.yaml").write_text("lines:\n" + body)
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "dvc.lock").write_text(LOCK.format(line=lines[0]))
    (root / "requirements.lock").write_text("numpy==2\n")
    (root / "mlflow").symlink_to(REPOSITORY / "mlflow")
    workspace = Workspace(root)
    for line in lines:
        write_outputs(workspace, line)
    return workspace


def write_outputs(workspace: Workspace, line: str, *, auroc: float = 0.93, seed: int = 0) -> None:
    """The outputs of all five stages; another ``seed`` is another training."""
    figures = {
        "image_auroc": auroc,
        "image_aupr": 0.9,
        "fnr_at_fpr_01": 0.4,
        "fnr_at_fpr_05": 0.2,
        "f1": 0.8,
        "pixel_auroc": None,
        "aupro": None,
        "aupimo": None,
        "ci95": {"image_auroc": [auroc - 0.02, auroc + 0.02]},
    }
    metrics = {
        "line": line,
        "backbone": "novad-bcos",
        "explainer": "bcos",
        "counts": {"train": 60, "calibration": 15, "tuning": 30, "test_normal": 30, "test_anomalous": 40},
        "scores": {"familiarity": figures, "novelty": figures, "hybrid": figures},
        "fusion": {"weight": 0.5, "tuned_on": "tuning"},
        "threshold": {"value": 1.5, "alpha": 0.05, "method": "conformal"},
        "explanation": {
            "exact": True,
            "completeness_error_max": 1e-7,
            "energy_in_mask": None,
            "pointing_game": None,
            "pointing_game_near": None,
            "randomisation_similarity": None,
        },
        "cost": {"seconds_per_stage": {"validate": 1.0}},
    }
    generator = np.random.default_rng(seed)
    tensor = {"bank": generator.normal(size=(50, 8)).astype(np.float32)}
    _write(workspace, line, "validate", {"report.json": {"errors": [], "warnings": []}})
    _write(workspace, line, "memory_bank", {"bank.json": {"vectors": 50}, "suspicious.json": {"images": []}})
    _write(workspace, line, "calibrate_explainer", {"candidates.json": {"chosen": 0}})
    check = {"normals": 10, "failed": 1, "p_value": 0.5}
    fusion = {"weight": 0.5, "thresholds": THRESHOLDS, "tuning_check": check}
    _write(workspace, line, "tune_fusion", {"fusion.json": fusion})
    _write(workspace, line, "evaluate", {"metrics.json": metrics})
    validate = workspace.artifacts(line, "validate")
    manifest = pd.DataFrame(
        {"path": ["good/0.png"], "split": ["bank"], "sha256": ["0" * 64], "width": [24], "height": [16]}
    )
    manifest.to_parquet(validate / "manifest.parquet")
    (validate / "docs").mkdir(exist_ok=True)
    (validate / "docs" / "index.html").write_text("<html>data docs</html>")
    save_file(tensor, workspace.artifacts(line, "memory_bank") / "bank.safetensors")
    (workspace.artifacts(line, "memory_bank") / "suspicious.png").write_bytes(b"picture")
    evaluate = workspace.artifacts(line, "evaluate")
    fake_scores(seed).to_parquet(evaluate / "scores.parquet")
    for folder, name in (("heatmaps", "a.png"), ("plots", "roc.png")):
        (evaluate / folder).mkdir(exist_ok=True)
        (evaluate / folder / name).write_bytes(b"picture")
    detector = evaluate / "detector"
    detector.mkdir(exist_ok=True)
    save_file(tensor, detector / "bank.safetensors")
    digest = hashlib.sha256((detector / "bank.safetensors").read_bytes()).hexdigest()
    (detector / "detector.json").write_text(json.dumps({"line": line, "files": {"bank.safetensors": digest}}))


def fake_scores(seed: int = 0) -> pd.DataFrame:
    """Test scores of 30 good parts and of 20 scratches and 20 dents, the dents hard to see."""
    generator = np.random.default_rng(seed)
    kinds = ["good"] * 30 + ["scratch"] * 20 + ["dent"] * 20
    usual = {"good": 0.0, "scratch": 4.0, "dent": 1.4}
    hybrid = np.array([generator.normal(usual[kind], 0.7) for kind in kinds])
    return pd.DataFrame(
        {
            "path": [f"test/{kind}/{at}.png" for at, kind in enumerate(kinds)],
            "sha256": [hashlib.sha256(str(at).encode()).hexdigest() for at in range(len(kinds))],
            "split": "test",
            "label": [int(kind != "good") for kind in kinds],
            "defect_type": kinds,
            "familiarity": hybrid,
            "novelty": hybrid,
            "hybrid": hybrid,
        }
    )


def _write(workspace: Workspace, line: str, stage: str, documents: dict[str, object]) -> None:
    folder = workspace.artifacts(line, stage)
    folder.mkdir(parents=True, exist_ok=True)
    for name, document in {**documents, "cost.json": {"seconds": 1.0}}.items():
        (folder / name).write_text(json.dumps(document, indent=2, sort_keys=True))
