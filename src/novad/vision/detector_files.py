"""A detector on disk: safetensors and one JSON whose digests cover every file; nothing is pickled."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from novad.errors import IntegrityError
from novad.vision.backbones import Backbone, file_sha256, load_backbone
from novad.vision.calibration import NormalScale
from novad.vision.detection import Thresholds
from novad.vision.detector import Detector, FamiliarityModel, FusionModel, NoveltyModel
from novad.vision.explainers import build_explainer
from novad.vision.maps import MapScale
from novad.vision.memory_bank import load_bank
from novad.vision.novelty import Candidate, NormalStatistics

__all__ = [
    "fusion_model",
    "load_detector",
    "load_normal_statistics",
    "save_detector",
    "save_normal_statistics",
]

MANIFEST = "detector.json"
BANK, CALIBRATION = "bank.safetensors", "calibration.safetensors"


def save_detector(
    folder: Path,
    *,
    line: str,
    image_size: int,
    backbone: dict[str, Any],
    explainer: dict[str, Any],
    familiarity: dict[str, Any],
    candidate: dict[str, Any],
    fusion: dict[str, Any],
    checkpoints: dict[str, Path],
    bank: Path,
    calibration: Path,
) -> None:
    """Gather a detector's files in ``folder``, which must not hold anything else.

    Args:
        folder: target, created.
        line: product line.
        image_size: side of the network's input.
        backbone: ``architecture``, ``checkpoint`` (a key of ``checkpoints``) and ``layers``.
        explainer: the same of the explained network, and ``method``.
        familiarity: ``anomaly_type``, ``neighbours``, ``top_share``, ``images``.
        candidate: fields of the chosen ``Candidate``.
        fusion: content of ``fusion.json``.
        checkpoints: file name in the folder to the checkpoint copied there.
        bank: the memory bank's file.
        calibration: the normal statistics' file.
    """
    folder.mkdir(parents=True)
    for name, source in {**checkpoints, BANK: bank, CALIBRATION: calibration}.items():
        shutil.copyfile(source, folder / name)
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    manifest = {
        "format": 1,
        "line": line,
        "image_size": image_size,
        "backbone": backbone,
        "explainer": explainer,
        "familiarity": familiarity,
        "candidate": candidate,
        "fusion": fusion,
        "files": files,
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", "utf-8")


def load_detector(folder: Path) -> Detector:
    """Load what ``save_detector`` wrote, after checking every digest.

    Raises:
        IntegrityError: a file is missing, or is not the one recorded.
    """
    manifest, digest = _verified(folder)
    backbone = _backbone(folder, manifest, manifest["backbone"])
    explained = manifest["explainer"]
    same = all(
        explained[key] == manifest["backbone"][key] for key in ("architecture", "checkpoint", "layers")
    )
    explained_backbone = backbone if same else _backbone(folder, manifest, explained)
    told = manifest["familiarity"]
    return Detector(
        line=manifest["line"],
        image_size=manifest["image_size"],
        familiarity=FamiliarityModel(
            backbone,
            load_bank(folder / BANK),
            told["anomaly_type"],
            told["neighbours"],
            told["top_share"],
            tuple((path, sha256) for path, sha256 in told["images"]),
        ),
        novelty=NoveltyModel(
            build_explainer(explained["method"], explained_backbone),
            Candidate(**manifest["candidate"]),
            load_normal_statistics(folder / CALIBRATION),
        ),
        fusion=fusion_model(manifest["fusion"]),
        digest=digest,
    )


def fusion_model(document: dict[str, Any]) -> FusionModel:
    """The fusion model that ``fusion.json`` describes."""
    scales, told = document["scales"], document["thresholds"]
    return FusionModel(
        familiarity=NormalScale(**scales["familiarity"]),
        novelty=NormalScale(**scales["novelty"]),
        familiarity_map=MapScale(**scales["familiarity_map"]),
        novelty_map=MapScale(**scales["novelty_map"]),
        weight=document["weight"],
        thresholds=Thresholds(told["fail"], told["review"], told["alpha"], told["map"]),
        normal_scores=np.asarray(document["normal_scores"], np.float64),
    )


def save_normal_statistics(normal: NormalStatistics, path: Path) -> None:
    """Write the distribution of a candidate's statistics."""
    save_file(normal.tensors(), path)


def load_normal_statistics(path: Path) -> NormalStatistics:
    """Read what ``save_normal_statistics`` wrote."""
    return NormalStatistics(**load_file(path))


def _verified(folder: Path) -> tuple[dict[str, Any], str]:
    try:
        text = (folder / MANIFEST).read_bytes()
        manifest: dict[str, Any] = json.loads(text)
        recorded = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{folder / MANIFEST}: not a detector: {error}") from None
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    if present != set(recorded):
        odd = ", ".join(sorted(present ^ set(recorded)))
        raise IntegrityError(f"{folder}: files missing or not recorded: {odd}")
    for name, sha256 in recorded.items():
        if (found := file_sha256(folder / name)) != sha256:
            raise IntegrityError(f"{folder / name}: sha256 is {found}, recorded {sha256}")
    return manifest, hashlib.sha256(text).hexdigest()


def _backbone(folder: Path, manifest: dict[str, Any], told: dict[str, Any]) -> Backbone:
    name = told["checkpoint"]
    return load_backbone(told["architecture"], folder / name, manifest["files"][name], told["layers"])
