"""A detector on disk: safetensors and one JSON whose digests cover every file; nothing is pickled."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from novad.errors import IntegrityError
from novad.vision.appearance import AppearanceNovelty
from novad.vision.backbones import Backbone, file_sha256, load_backbone
from novad.vision.calibration import NormalScale
from novad.vision.detection import Thresholds
from novad.vision.detector import Detector
from novad.vision.devices import check_device
from novad.vision.evidence import Evidence
from novad.vision.explainers import Memory, build_explainer
from novad.vision.maps import MapScale
from novad.vision.memory_bank import load_bank
from novad.vision.models import FamiliarityModel, FusionModel, NoveltyModel
from novad.vision.novelty import Candidate, NormalStatistics
from novad.vision.patch_evidence import Discriminant, PatchEvidence
from novad.vision.patch_features import NEIGHBOURHOOD
from novad.vision.preprocess import Size, height_and_width
from novad.vision.tensor_files import read_tensors

__all__ = [
    "Calibration",
    "fusion_model",
    "load_detector",
    "load_novelty",
    "save_detector",
    "save_novelty",
]

MANIFEST = "detector.json"
BANK, CALIBRATION = "bank.safetensors", "calibration.safetensors"


@dataclass(frozen=True)
class Calibration:
    """What novelty learned from a line's images; see the fields of ``NoveltyModel``."""

    normal: Mapping[float, NormalStatistics]
    evidence: Evidence | None = None
    appearance: AppearanceNovelty | None = None
    patches: PatchEvidence | None = None


def save_detector(
    folder: Path,
    *,
    line: str,
    image_size: Size,
    backbone: dict[str, Any],
    explainer: dict[str, Any],
    familiarity: dict[str, Any],
    novelty: dict[str, Any],
    fusion: dict[str, Any],
    checkpoints: dict[str, Path],
    bank: Path,
    calibration: Path,
) -> None:
    """Gather a detector's files in ``folder``, which must not hold anything else.

    Args:
        folder: target, created.
        line: product line.
        image_size: of the network's input, in pixels.
        backbone: ``architecture``, ``checkpoint`` (a key of ``checkpoints``), ``layers`` and ``tile``.
        explainer: the same of the explained network, and ``method``.
        familiarity: ``anomaly_type``, ``neighbours``, ``top_share``, ``smoothing``, ``neighbourhood``,
            ``appearance_neighbourhood``, ``images``, ``layers``, ``companions``.
        novelty: ``shown``, fields of the map's ``Candidate``; ``judged``, of those that the score reads; and
            whether it reads ``residuals``.
        fusion: content of ``fusion.json``.
        checkpoints: file name in the folder to the checkpoint copied there.
        bank: the memory bank's file.
        calibration: from ``save_novelty``.
    """
    folder.mkdir(parents=True)
    for name, source in {**checkpoints, BANK: bank, CALIBRATION: calibration}.items():
        shutil.copyfile(source, folder / name)
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    manifest = {
        "format": 9,
        "line": line,
        "image_size": height_and_width(image_size),
        "backbone": backbone,
        "explainer": explainer,
        "familiarity": familiarity,
        "novelty": novelty,
        "fusion": fusion,
        "files": files,
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", "utf-8")


def load_detector(folder: Path, device: str = "cpu") -> Detector:
    """Load what ``save_detector`` wrote, after checking every digest.

    Args:
        folder: of the detector.
        device: where it is to score.
    Raises:
        ConfigError: there is no such device.
        IntegrityError: a file is missing, or is not the one recorded.
    """
    check_device(device)
    manifest, digest = _verified(folder)
    recorded = manifest["files"]
    backbone = _backbone(folder, manifest, manifest["backbone"], device)
    explained = manifest["explainer"]
    same = all(
        explained.get(key) == manifest["backbone"].get(key)
        for key in ("architecture", "checkpoint", "layers", "tile")
    )
    explained_backbone = backbone if same else _backbone(folder, manifest, explained, device)
    told = manifest["familiarity"]
    novelty = manifest["novelty"]
    learned = load_novelty(folder / CALIBRATION, recorded[CALIBRATION], device)
    bank = load_bank(folder / BANK, recorded[BANK], device)
    neighbourhood = told.get("neighbourhood", NEIGHBOURHOOD)  # format 4 and before had none
    layers, companions = (tuple(told.get(name, ())) for name in ("layers", "companions"))  # format 6 had none
    memory = Memory(bank, told["anomaly_type"], neighbourhood, layers) if same else None
    return Detector(
        line=manifest["line"],
        image_size=_size(manifest["image_size"]),
        familiarity=FamiliarityModel(
            backbone,
            bank,
            told["anomaly_type"],
            told["neighbours"],
            told["top_share"],
            told["smoothing"],
            tuple((path, sha256) for path, sha256 in told["images"]),
            neighbourhood,
            layers,
            companions,
            told.get("appearance_neighbourhood", neighbourhood),  # format 7 averaged it as features
        ),
        novelty=NoveltyModel(
            build_explainer(explained["method"], explained_backbone, memory),
            Candidate(**novelty["shown"]),
            tuple(Candidate(**each) for each in novelty["judged"]),
            learned.evidence,
            learned.normal,
            novelty.get("residuals", False),  # format 2 had none
            learned.appearance,
            learned.patches,
        ),
        fusion=fusion_model(manifest["fusion"]),
        digest=digest,
    )


def _size(told: int | list[int]) -> Size:
    return told if isinstance(told, int) else (told[0], told[1])  # format 6 had the side of a square


def fusion_model(document: dict[str, Any]) -> FusionModel:
    """The fusion model that ``fusion.json`` describes."""
    scales, told = document["scales"], document["thresholds"]
    return FusionModel(
        familiarity=NormalScale(**scales["familiarity"]),
        novelty=NormalScale(**scales["novelty"]),
        familiarity_map=MapScale(**scales["familiarity_map"]),
        novelty_map=MapScale(**scales["novelty_map"]),
        weight=document["weight"],
        map_weight=document["map_weight"],
        thresholds=Thresholds(told["fail"], told["review"], told["alpha"], told["map"]),
        normal_scores=np.asarray(document["normal_scores"], np.float64),
    )


def save_novelty(learned: Calibration, path: Path) -> None:
    """Write what novelty learned from a line's images."""
    tensors = {f"normal/{smoothing}/{name}": value for smoothing, name, value in _flat(learned.normal)}
    if (evidence := learned.evidence) is not None:
        tensors |= {
            "evidence/centre": evidence.centre,
            "evidence/scale": evidence.scale,
            "evidence/weight": evidence.weight,
            "evidence/reading": torch.tensor([evidence.offset, evidence.spread], dtype=torch.float64),
        }
    if (appearance := learned.appearance) is not None:
        tensors |= {f"appearance/{part}/{name}": value for part, name, value in _flat(_known(appearance))}
    if (patches := learned.patches) is not None:
        read = patches.discriminant
        tensors |= {
            "patches/centre": patches.centre,
            "patches/scale": patches.scale,
            "patches/weight": read.weight,
            "patches/reading": torch.tensor([read.offset, read.spread], dtype=torch.float64),
        }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def load_novelty(path: Path, sha256: str | None = None, device: str = "cpu") -> Calibration:
    """Read what ``save_novelty`` wrote.

    Raises:
        IntegrityError: the file has another digest than the one named, or holds no tensors.
    """
    tensors = read_tensors(path, sha256, device)
    normal = {float(smoothing): each for smoothing, each in _statistics(tensors, "normal").items()}
    looks = _statistics(tensors, "appearance")
    appearance = AppearanceNovelty(**looks) if looks else None
    evidence = patches = None
    if "evidence/weight" in tensors:
        evidence = Evidence(*_reading(tensors, "evidence"))
    if "patches/weight" in tensors:
        centre, scale, weight, offset, spread = _reading(tensors, "patches")
        patches = PatchEvidence(centre, scale, Discriminant(weight, offset, spread))
    return Calibration(normal, evidence, appearance, patches)


def _reading(tensors: Mapping[str, Tensor], kind: str) -> tuple[Tensor, Tensor, Tensor, float, float]:
    offset, spread = tensors[f"{kind}/reading"].tolist()
    centre, scale, weight = (tensors[f"{kind}/{name}"] for name in ("centre", "scale", "weight"))
    return centre, scale, weight, offset, spread


def _known(appearance: AppearanceNovelty) -> dict[str, NormalStatistics]:
    return {name: each for name, each in vars(appearance).items() if each is not None}


def _flat(statistics: Mapping[Any, NormalStatistics]) -> Iterator[tuple[Any, str, Tensor]]:
    for key, each in statistics.items():
        for name, value in each.tensors().items():
            yield key, name, value


def _statistics(tensors: Mapping[str, Tensor], kind: str) -> dict[str, NormalStatistics]:
    keys = sorted({name.split("/")[1] for name in tensors if name.startswith(f"{kind}/")})
    fields = NormalStatistics.__dataclass_fields__
    return {
        key: NormalStatistics(**{field: tensors[f"{kind}/{key}/{field}"] for field in fields}) for key in keys
    }


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


def _backbone(folder: Path, manifest: dict[str, Any], told: dict[str, Any], device: str) -> Backbone:
    """Detectors written before there were tiles name none."""
    name, tile = told["checkpoint"], told.get("tile", 0)
    return load_backbone(
        told["architecture"], folder / name, manifest["files"][name], told["layers"], tile, device
    )
