"""Explainers of one network side by side: what they cost, whether they are complete, where they point."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.inputs import Request, default_bank, fastest, image_files, read, read_mask, requested_backbone
from benchmarks.report import MissingInput, Report
from novad.config import CalibrateExplainerSettings, MemoryBankSettings
from novad.errors import ConfigError
from novad.evaluation.explanation import energy_in_mask, pointing_game, randomisation_similarity
from novad.evaluation.metrics import image_auroc
from novad.images import discover
from novad.vision.backbones import Backbone
from novad.vision.candidates import CandidateGrid, fit_normal_statistics
from novad.vision.explainers import EXPLAINERS, Explainer, Explanation, build_explainer
from novad.vision.familiarity import feature_grids
from novad.vision.models import FamiliarityModel, NoveltyModel
from novad.vision.novelty import map_step
from novad.vision.pooling import resize_maps, smooth
from novad.vision.preprocess import batches, to_batch
from novad.vision.randomised import randomised

__all__ = ["measure"]

BATCH = 8
SMOOTHING = 2.0
SHARES = {"a third": 1 / 3, "two thirds": 2 / 3, "all": 1.0}
MOST_RANDOMISED = 4
SEED = 0
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Views:
    """What is explained.

    Attributes:
        train: normal images that statistics and bank are made of, in batches.
        normal: test images without a defect, in batches.
        defective: test images with one, in batches.
        masks: of the defective ones, as large as the images' files.
    """

    train: list[Tensor]
    normal: list[Tensor]
    defective: list[Tensor]
    masks: list[Mask]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) of normal and defective test images, in this order."""
        return np.repeat([0, 1], [sum(map(len, self.normal)), len(self.masks)])


def measure(request: Request) -> Report:
    """Compare every explainer that can explain the network, each by its reference statistic.

    Nothing is chosen on test images: the layer is the first that the network reads, statistic, smoothing and
    top share are where a line's search starts.

    Raises:
        MissingInput: no images, or no defects with masks among them.
    """
    backbone, views = requested_backbone(request), _views(request)
    rows = [_uniform_row(views), _familiarity_row(backbone, views)]
    refused = []
    for method in request.methods or EXPLAINERS:
        try:
            explainer = build_explainer(method, backbone)
        except ConfigError:
            refused.append(method)
            continue
        for target in dict.fromkeys((explainer.targets[0], backbone.layers[0])):
            # Of a network that reads no deeper, so that cost and randomised share are of what is explained.
            own = build_explainer(method, requested_backbone(request, (target,)))
            rows.append(_row(own, target, views, request.repeats))
    return Report(
        "Explainers of one network",
        {
            "data": request.data.name,
            "side": request.size,
            "network": backbone.architecture,
            "training images": sum(map(len, views.train)),
            "normal + defective": f"{(views.labels == 0).sum()} + {(views.labels == 1).sum()}",
            "cannot explain it": ", ".join(refused) or "none",
        },
        rows,
    )


def _views(request: Request) -> Views:
    train = image_files(request, request.images)
    test = [each for each in discover(request.data, "mvtec") if each.source == "test"]
    defective = _spread([each for each in test if each.mask_path], request.scored)
    if not defective:
        raise MissingInput(f"no defects with masks in {request.data}; name another folder with --data")
    normal = _spread([each for each in test if each.label == 0], request.scored)

    def load(paths: Sequence[Any]) -> list[Tensor]:
        return [to_batch(group, request.size) for group in batches(map(read, paths), BATCH)]

    return Views(
        load(train),
        load([request.data / each.path for each in normal]),
        load([request.data / each.path for each in defective]),
        [read_mask(request.data / str(each.mask_path)) for each in defective],
    )


def _spread(found: list[Any], most: int) -> list[Any]:
    wanted = min(most, len(found))
    return [found[number * len(found) // wanted] for number in range(wanted)]


def _uniform_row(views: Views) -> dict[str, Any]:
    """What a map that says nothing gets: its energy is spread evenly, and its point falls anywhere."""
    share = float(np.mean([mask.mean() for mask in views.masks]))
    return {**_empty("uniform map", "-"), "energy, novelty": share, "pointing, novelty": share}


def _empty(name: str, target: str) -> dict[str, Any]:
    kinds = ("attribution", "novelty")
    return {
        "explainer": name,
        "explains": target,
        "cost": None,
        "completeness error": None,
        **{f"energy, {kind}": None for kind in kinds},
        **{f"pointing, {kind}": None for kind in kinds},
        "AUROC": None,
        **{f"similar, {name} random": None for name in SHARES},
    }


def _familiarity_row(backbone: Backbone, views: Views) -> dict[str, Any]:
    settings = MemoryBankSettings()
    grids = (grid for batch in views.train for grid in feature_grids(backbone(batch), "sensory"))
    bank = default_bank(grids, sum(map(len, views.train)))
    model = FamiliarityModel(
        backbone, bank, "sensory", settings.neighbours, settings.top_share, settings.smoothing
    )
    with torch.inference_mode():
        found = [model.score(backbone(batch)) for batch in (*views.normal, *views.defective)]
    energy, pointing = _localisation((each.maps for each in found[len(views.normal) :]), views.masks)
    scores = torch.cat([each.scores for each in found]).double().numpy()
    return {
        **_empty("familiarity", "+".join(backbone.layers)),
        "energy, novelty": energy,
        "pointing, novelty": pointing,
        "AUROC": image_auroc(scores, views.labels),
    }


def _row(explainer: Explainer, target: str, views: Views, repeats: int) -> dict[str, Any]:
    kept, first = Kept(explainer), views.defective[0]
    novelty = _novelty(kept, target, views.train)
    seconds = fastest(
        {
            "forward": partial(_forward, explainer.backbone, first),
            "explain": partial(explainer.explain, first, target),
        },
        repeats,
    )
    normal = [novelty.score(novelty.explain(batch).deviations) for batch in views.normal]
    kept.explanations.clear()
    judged = [novelty.explain(batch) for batch in views.defective]
    errors = torch.cat([each.completeness_error() for each in kept.explanations])
    maps = [each.maps for each in judged]
    energy, pointing = _localisation((_shown(each.contribution) for each in kept.explanations), views.masks)
    novel_energy, novel_pointing = _localisation(iter(maps), views.masks)
    scores = torch.cat([*normal, *(novelty.score(each.deviations) for each in judged)]).double().numpy()
    return {
        "explainer": explainer.method,
        "explains": target,
        "cost": seconds["explain"] / seconds["forward"],
        "completeness error": float(errors.mean()),
        "energy, attribution": energy,
        "energy, novelty": novel_energy,
        "pointing, attribution": pointing,
        "pointing, novelty": novel_pointing,
        "AUROC": image_auroc(scores, views.labels),
        **{
            f"similar, {name} random": _similarity(novelty, first, maps[0], share)
            for name, share in SHARES.items()
        },
    }


class Kept(Explainer):
    """An explainer that keeps what it said: some take a hundred forward passes for an image."""

    def __init__(self, explainer: Explainer) -> None:
        super().__init__(explainer.backbone)
        self.method, self.targets, self.statistics = explainer.method, explainer.targets, explainer.statistics
        self.reference, self.explainer = explainer.reference, explainer
        self.explanations: list[Explanation] = []

    def explain(self, images: Tensor, target: str) -> Explanation:
        self.explanations.append(self.explainer.explain(images, target))
        return self.explanations[-1]


def _novelty(explainer: Explainer, target: str, train: list[Tensor]) -> NoveltyModel:
    shares = CalibrateExplainerSettings().top_shares
    grid = CandidateGrid.of(explainer, [target], [explainer.reference[0]], [SMOOTHING], shares[:1])
    fits = fit_normal_statistics(grid, [(explainer, batch) for batch in train])
    candidate = grid.reference(explainer, target)
    return NoveltyModel(explainer, candidate, (candidate,), None, {SMOOTHING: fits[target, SMOOTHING]})


def _forward(backbone: Backbone, images: Tensor) -> None:
    with torch.inference_mode():
        backbone(images)


def _shown(contribution: Tensor) -> Tensor:
    """(N, h, w) strength of an attribution, as coarse and as smooth as a novelty map is."""
    step = map_step(contribution.shape[-1])
    return smooth(torch.nn.functional.avg_pool2d(contribution.abs()[:, None], step), SMOOTHING)[:, 0]


def _localisation(batched: Iterator[Tensor], masks: list[Mask]) -> tuple[float, float]:
    """Mean energy in the mask above the map's median, and hits of the pointing game."""
    energy, hits = [], []
    maps: Iterator[Tensor] = (each for batch in batched for each in batch)
    for coarse, mask in zip(maps, masks, strict=True):
        heat = resize_maps(coarse[None].float(), (mask.shape[0], mask.shape[1]))[0].numpy()
        energy.append(energy_in_mask(heat - np.median(heat), mask))
        hits.append(pointing_game(heat, mask))
    return float(np.mean(energy)), float(np.mean(hits))


def _similarity(novelty: NoveltyModel, images: Tensor, maps: Tensor, share: float) -> float:
    """Mean rank correlation of some maps with those of a network whose deepest share is random."""
    explainer = novelty.explainer
    other = build_explainer(explainer.method, randomised(explainer.backbone, SEED, share))
    found = replace(novelty, explainer=other).explain(images[:MOST_RANDOMISED]).maps
    pairs = zip(maps[:MOST_RANDOMISED].numpy(), found.numpy(), strict=True)
    return float(np.mean([randomisation_similarity(mine, random) for mine, random in pairs]))
