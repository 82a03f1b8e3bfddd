"""Gathers the outputs of the earlier stages into one self-contained detector."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from novad.config import BackboneSettings
from novad.stages.line import Line, layers_read
from novad.stages.runner import read_json
from novad.vision.detector_files import save_detector
from novad.vision.patch_features import NEIGHBOURHOOD

__all__ = ["write_detector"]


def write_detector(line: Line, folder: Path) -> None:
    """Write the line's detector: networks, bank, calibration, fusion and what it was trained on."""
    settings = line.settings
    bank = read_json(line.output("memory_bank", "bank.json"))
    backbone, explained = settings.backbone, settings.explainer.backbone
    read = layers_read(bank)
    calibrated = read_json(line.output("calibrate_explainer", "candidates.json"))
    checkpoints = {_file(told): line.workspace.path(told.checkpoint) for told in (backbone, explained)}
    save_detector(
        folder,
        line=line.name,
        image_size=backbone.input_size,
        backbone=_told(backbone, read),
        explainer={
            **_told(explained, read if explained == backbone else explained.layers),
            "method": settings.explainer.method,
        },
        familiarity={
            "anomaly_type": settings.anomaly_type,
            "neighbours": settings.memory_bank.neighbours,
            "top_share": settings.memory_bank.top_share,
            "smoothing": bank["smoothing"],
            "neighbourhood": bank["neighbourhood"],
            "appearance_neighbourhood": NEIGHBOURHOOD,
            "layers": bank["layers"],
            "companions": bank["companions"],
            "images": bank["images"],
        },
        novelty={name: calibrated[name] for name in ("shown", "judged", "residuals")},
        fusion=read_json(line.output("tune_fusion", "fusion.json")),
        checkpoints=checkpoints,
        bank=line.output("memory_bank", "bank.safetensors"),
        calibration=line.output("calibrate_explainer", "calibration.safetensors"),
    )


def _file(backbone: BackboneSettings) -> str:
    """Name of a checkpoint in the folder; the digest keeps two networks of one architecture apart."""
    return f"{backbone.architecture.replace(':', '-')}-{backbone.sha256[:12]}.safetensors"


def _told(backbone: BackboneSettings, layers: Sequence[str]) -> dict[str, Any]:
    return {
        "architecture": backbone.architecture,
        "checkpoint": _file(backbone),
        "layers": list(layers),
        "tile": backbone.tile,
    }
