"""What a line costs beyond its network's bare forward pass over the same images, in one run."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs import (
    Request,
    bundled_backbone,
    default_bank,
    fastest,
    image_files,
    read,
    requested_backbone,
)
from benchmarks.report import Report
from novad.config import CalibrateExplainerSettings, MemoryBankSettings
from novad.config.environment import scoring_device
from novad.stages.runner import read_json
from novad.vision import Detector, Thresholds
from novad.vision.backbones import Backbone, BcosBackbone, load_backbone
from novad.vision.calibration import NormalScale
from novad.vision.candidates import CandidateGrid, fit_normal_statistics
from novad.vision.detector_files import MANIFEST
from novad.vision.explainers import build_explainer
from novad.vision.familiarity import feature_grids
from novad.vision.maps import MapScale
from novad.vision.memory_bank import MemoryBank
from novad.vision.models import FamiliarityModel, FusionModel, NoveltyModel, raw_scores
from novad.vision.preprocess import Size, batches, to_batch

__all__ = ["measure"]

BATCH = 8  # of what no line was trained for
STATISTIC, SMOOTHING = "weight_norm", 2.0
FORWARD, WHOLE = "bare forward pass", "forward pass of the whole network"
Actions = dict[str, Callable[[], object]]


def measure(request: Request) -> Report:
    """Time the bank stage and scoring, and divide each by the bare forward pass over the same images.

    A trained line's bare pass ends at the layers that it reads; its rows are divided by the pass through all
    stages of its network, too.

    Where ``NOVAD_DEVICE`` names a GPU, trained lines alone are scored, there.
    """
    scored = [read(path) for path in image_files(request, request.scored)]
    device = scoring_device()
    rows, told = _untrained(request, scored) if device == "cpu" else ([], {})
    for folder in sorted(request.artifacts.glob("*/evaluate/detector")):
        detector, network = Detector.load(folder, device), _whole_network(folder, device)
        actions = _trained_actions(detector, network, scored, request.batch)
        rows += _rows(actions, len(scored), request.repeats)
    return Report(
        "Cost beyond the bare forward pass",
        {
            "data": request.data.name,
            "device": device,
            "images per batch of trained lines": request.batch,
            **told,
            "fastest of": request.repeats,
        },
        rows,
    )


def _untrained(request: Request, scored: list[Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of a bank as a new line's settings make it, and what was measured."""
    files, backbone = image_files(request, request.images), requested_backbone(request)
    explained = backbone if isinstance(backbone, BcosBackbone) else bundled_backbone()
    familiarity = _familiarity(backbone, _bank(backbone, files, request.size), len(files))
    rows = [
        *_rows(_bank_actions(backbone, files, request.size), len(files), request.repeats),
        *_rows(_scoring_actions(familiarity, explained, scored, request.size), len(scored), request.repeats),
    ]
    return rows, {
        "side": request.size,
        "backbone": backbone.architecture,
        "explained": explained.architecture,
        "vectors in the bank": len(familiarity.bank.vectors),
    }


def _rows(actions: Actions, images: int, repeats: int) -> list[dict[str, Any]]:
    seconds = fastest(actions, repeats)
    return [
        {
            "what": name,
            "images": images,
            "seconds": round(taken, 3),
            "ms per image": round(1000 * taken / images, 2),
            "ratio": round(taken / seconds[FORWARD], 2),
            "of the whole network": round(taken / seconds[WHOLE], 2) if WHOLE in seconds else None,
        }
        for name, taken in seconds.items()
    ]


def _bank_actions(backbone: Backbone, files: list[Path], size: int) -> Actions:
    tensors = [to_batch(group, size) for group in batches((read(path) for path in files), BATCH)]
    return {
        FORWARD: partial(_forward, backbone, tensors),
        "memory-bank stage: decoding, features, coreset": partial(_bank, backbone, files, size),
    }


def _scoring_actions(
    familiarity: FamiliarityModel, explained: Backbone, images: list[Any], size: int
) -> Actions:
    tensors = [to_batch(group, size) for group in batches(images, BATCH)]
    actions: Actions = {
        FORWARD: partial(_forward, familiarity.backbone, tensors),
        "decoded images to batches": partial(_prepare, images, size, BATCH, torch.device("cpu")),
        "scoring: familiarity only": partial(_score_familiarity, familiarity, images, size),
    }
    for novelty in _novelties(explained, tensors):
        detector = Detector("benchmark", size, familiarity, novelty, _fusion())
        name = f"scoring: hybrid, {novelty.shown.target} explained"
        actions[name] = partial(_score, detector, images)
    return actions


def _whole_network(folder: Path, device: str) -> Backbone:
    """The network of a saved detector's familiarity, read at its deepest stage."""
    told = read_json(folder / MANIFEST)
    own = told["backbone"]
    checkpoint, sha256 = folder / own["checkpoint"], told["files"][own["checkpoint"]]
    load = partial(load_backbone, own["architecture"], checkpoint, sha256, device=device)
    return load(layers=list(load().available)[-1:])


def _trained_actions(detector: Detector, network: Backbone, images: list[Any], batch: int) -> Actions:
    """A trained line as it is deployed: its network, its size, its candidate."""
    size, device = detector.image_size, detector.device
    tensors = [to_batch(group, size, device) for group in batches(images, batch)]
    chosen = detector.novelty.shown
    as_trained = f"line {detector.line}, {chosen.target} {chosen.statistic}, input {size[1]}x{size[0]}"
    return {
        FORWARD: partial(_forward, detector.familiarity.backbone, tensors),
        WHOLE: partial(_forward, network, tensors),
        "decoded images to batches": partial(_prepare, images, size, batch, device),
        f"scoring: familiarity only, {as_trained}": partial(
            _score_familiarity, detector.familiarity, images, size, batch
        ),
        f"scoring: hybrid of batches, {as_trained}": partial(_score_tensors, detector, tensors),
        f"scoring: hybrid, {as_trained}": partial(_score, detector, images, batch),
    }


def _forward(backbone: Backbone, tensors: list[Tensor]) -> None:
    with torch.inference_mode():
        for batch in tensors:
            backbone(batch)
        _wait_for(tensors[0].device)


def _wait_for(device: torch.device) -> None:
    """A GPU has only been asked by now."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def _bank(backbone: Backbone, files: list[Path], size: int) -> MemoryBank:
    """A bank from the files, by a line's default settings."""
    return default_bank(_grids(backbone, files, size), len(files))


def _grids(backbone: Backbone, files: list[Path], size: int) -> Iterator[Tensor]:
    for group in batches((read(path) for path in files), BATCH):
        yield from feature_grids(backbone(to_batch(group, size)), "sensory")


def _familiarity(backbone: Backbone, bank: MemoryBank, images: int) -> FamiliarityModel:
    settings = MemoryBankSettings()
    sources = tuple((f"{number}.png", "") for number in range(images))
    return FamiliarityModel(
        backbone, bank, "sensory", settings.neighbours, settings.top_share, settings.smoothing, sources
    )


def _score_familiarity(
    familiarity: FamiliarityModel, images: list[Any], size: Size, batch_size: int = BATCH
) -> None:
    with torch.inference_mode():
        for group in batches(images, batch_size):
            batch = to_batch(group, size, familiarity.bank.vectors.device)
            familiarity.score(familiarity.backbone(batch)).scores.cpu()


def _prepare(images: list[Any], size: Size, batch_size: int, device: torch.device) -> None:
    for group in batches(images, batch_size):
        to_batch(group, size, device)
    _wait_for(device)


def _score_tensors(detector: Detector, tensors: list[Tensor]) -> None:
    """Scores and maps, before they are scaled and fused."""
    for batch in tensors:
        raw_scores(detector.familiarity, detector.novelty, batch)
    _wait_for(detector.device)


def _score(detector: Detector, images: list[Any], batch_size: int = BATCH) -> None:
    for _ in detector.score(images, batch_size):
        pass


def _novelties(explained: Backbone, tensors: list[Tensor]) -> Iterator[NoveltyModel]:
    """One model per target; which statistic is read from the explanation hardly matters to its cost."""
    explainer = build_explainer("bcos", explained)
    shares = CalibrateExplainerSettings().top_shares
    for target in explainer.targets:
        grid = CandidateGrid.of(explainer, [target], [STATISTIC], [SMOOTHING], shares[:1])
        fits = fit_normal_statistics(grid, [(explainer, batch) for batch in tensors[:2]])
        candidate = next(each for each in grid.candidates(target) if each.located and each.side == "both")
        yield NoveltyModel(explainer, candidate, (candidate,), None, {SMOOTHING: fits[target, SMOOTHING]})


def _fusion() -> FusionModel:
    """Equal weights and unit scales: their values cost nothing."""
    limits = dict.fromkeys(("familiarity", "novelty", "hybrid"), 1.0)
    score, each = NormalScale(0.0, 1.0), MapScale(0.0, 1.0)
    return FusionModel(
        score, score, each, each, 0.5, 0.5, Thresholds(1.0, 0.5, 0.05, limits), np.linspace(0, 1, 100)
    )
