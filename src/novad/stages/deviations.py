"""How a line's images deviate from its normal ones, by every candidate and from what the memory expects."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.stages.line import Line, layers_read, spread
from novad.stages.options import Examples, Scored
from novad.stages.runner import read_json
from novad.vision.appearance import AppearanceNovelty, appearance_candidate, fit_appearance_novelty
from novad.vision.candidates import CandidateGrid, Fits, candidate_scores, fit_normal_statistics
from novad.vision.explainers import MEMORY, Explainer, Memory, build_explainer
from novad.vision.familiarity import FamiliarityScores
from novad.vision.fusion import standing
from novad.vision.memory_bank import load_bank
from novad.vision.models import FamiliarityModel
from novad.vision.novelty import Candidate
from novad.vision.pooling import top_means
from novad.vision.preprocess import batches, images_at_once, to_batch
from novad.vision.residuals import residual_deviations

__all__ = ["Deviations", "Remembered", "image_tensors", "learns", "load_models"]

Numbers = NDArray[np.int32]
Places = NDArray[np.int64]

# Axes of (N, 3, H, W) images that are turned round.
FLIPS = {"left-right": (3,), "upside-down": (2,), "both": (2, 3)}
# A flip is of use while mirrored normals stand out from plain ones in familiarity by an AUROC below this: on
# lines where it helped they did by 0.51 to 0.69, on one where it did harm by 1 (docs/research/evidence.md).
STANDS_OUT = 0.75
ASKED_MIRRORED = 64
# More tuning images teach enough as they are: 46 to 78 gained from flips, 129 did not.
MOST_MIRRORED = 100


@dataclass(frozen=True)
class Remembered:
    """What the memory bank says about N images.

    Attributes:
        found: familiarity and nearest vectors.
        differences: (N, A, h, w) in appearance; empty where the bank does not know it.
    """

    found: FamiliarityScores
    differences: Tensor


@dataclass(frozen=True)
class Deviations:
    """Everything that novelty may read on one line, fitted to its normal images.

    Attributes:
        line: trained as far as its memory bank.
        familiarity: its model.
        explainer: of the explained network.
        grid: deviations of the explanation.
        fits: distribution of its statistics over normal images.
        appearance: what appearance is usual; None for semantic anomalies, which are no matter of patches.
    """

    line: Line
    familiarity: FamiliarityModel
    explainer: Explainer
    grid: CandidateGrid
    fits: Fits
    appearance: AppearanceNovelty | None

    @classmethod
    def fit(cls, line: Line) -> "Deviations":
        """Ask bank images what is usual, each as if the bank did not hold it."""
        familiarity, explainer = load_models(line)
        told = line.settings.calibrate_explainer
        grid = CandidateGrid.of(explainer, told.targets, told.statistics, told.smoothing, told.top_shares)
        fitted, _ = _bank_parts(line)
        asked = ((explainer.without(own.tolist()), images) for own, images in _bank_batches(line, fitted))
        fits = fit_normal_statistics(grid, asked)
        appearance = None
        if line.settings.anomaly_type == "sensory":
            # All else that the memory says of an image takes ten times as much.
            seen = [
                _remember(familiarity, images, {}, own).differences
                for own, images in _bank_batches(line, fitted)
            ]
            appearance = fit_appearance_novelty(torch.cat(seen))
        return cls(line, familiarity, explainer, grid, fits, appearance)

    @property
    def look(self) -> Candidate:
        """The candidate that reads appearance."""
        return appearance_candidate(self.line.settings.memory_bank.top_share)

    @property
    def candidates(self) -> list[Candidate]:
        """Columns of the scores: those of every target, and appearance last where it is known."""
        explained = [each for target in self.grid.targets for each in self.grid.candidates(target)]
        return explained if self.appearance is None else [*explained, self.look]

    @property
    def reference(self) -> Candidate:
        """Where the search for a single deviation of the explanation starts."""
        return self.grid.reference(self.explainer)

    def score(self, rows: pd.DataFrame, images: Iterator[Any]) -> Scored:
        """Raw scores of the decoded ``images`` of ``rows``, by familiarity and by every candidate."""
        known, examples = _joined(self._batch(batch) for batch in image_tensors(self.line, images))
        novelty, residuals = examples.novelty, examples.residuals
        rows = rows.assign(part=self.line.parts(rows))
        return Scored(rows, self.candidates, known.astype(np.float64), novelty, residuals)

    def lessons(self, scored: Scored) -> tuple[Scored, Examples]:
        """What evidence learns from: the scored images, mirrored where that helps, and bank images."""
        return self.with_mirrored(scored), self.bank()

    def bank(self) -> Examples:
        """Of bank images that nothing was fitted on, each as if the bank did not hold it."""
        _, rest = _bank_parts(self.line)
        return _joined(self._batch(images, own) for own, images in _bank_batches(self.line, rest))[1]

    def with_mirrored(self, scored: Scored) -> Scored:
        """The same with the tuning images mirrored, as far as this leaves normal images normal."""
        rows = self.line.rows("tuning")
        mirrored = {}
        for name in self.flips():
            images = image_tensors(self.line, self.line.images(rows))
            _, mirrored[name] = _joined(self._batch(batch.flip(FLIPS[name])) for batch in images)
        return replace(scored, mirrored=mirrored)

    def flips(self) -> list[str]:
        """Names of the flips by which to learn: those after which bank images look as familiar as before."""
        if (
            not self.line.settings.calibrate_explainer.mirrored
            or len(self.line.rows("tuning")) > MOST_MIRRORED
        ):
            return []
        _, rest = _bank_parts(self.line)
        asked = rest[spread(len(rest), min(ASKED_MIRRORED, len(rest)))]
        plain = self._bank_familiarity(asked)
        apart = {name: standing(self._bank_familiarity(asked, axes), plain) for name, axes in FLIPS.items()}
        return [name for name, each in apart.items() if each.mean() < STANDS_OUT]

    def _bank_familiarity(self, places: Places, axes: tuple[int, ...] = ()) -> NDArray[np.float32]:
        """Raw familiarity of bank images turned round along ``axes``, each without its own vectors."""
        batches = _bank_batches(self.line, places)
        seen = (_remember(self.familiarity, images.flip(axes), {}, own) for own, images in batches)
        return torch.cat([each.found.scores for each in seen]).numpy()

    def remember(self, images: Tensor) -> Remembered:
        """What the memory says about images (N, 3, H, W)."""
        return _remember(self.familiarity, images, {})

    def _batch(self, images: Tensor, own: Numbers | None = None) -> tuple[NDArray[np.float32], ...]:
        """Familiarity (N,), all candidates (N, K) and residuals (N, R) of one batch."""
        explainer = self.explainer if own is None else self.explainer.without(own.tolist())
        novelty, features = candidate_scores(explainer, self.grid, self.fits, images)
        if self.explainer.backbone is not self.familiarity.backbone:
            features = {}
        seen = _remember(self.familiarity, images, features, own)
        with torch.inference_mode():
            left = self.familiarity.residuals(seen.found, seen.differences)
            residuals = residual_deviations(left, seen.found.distances)
        if self.appearance is not None:
            looks = self.appearance(seen.differences)
            novelty = np.concatenate([novelty, top_means(looks, [self.look.top_share]).numpy()], axis=1)
        return seen.found.scores.numpy(), novelty, residuals.numpy()


def _joined(batches: Iterable[tuple[NDArray[np.float32], ...]]) -> tuple[NDArray[np.float32], Examples]:
    """Familiarity (n,) and deviations of all images, from those of their batches."""
    known, novelty, residuals = (np.concatenate(each) for each in zip(*batches, strict=True))
    return known, Examples(novelty, residuals)


def learns(line: Line) -> bool:
    """Whether the line has images enough to weigh deviations instead of choosing one.

    Labelled anomalies as the settings ask for, and besides two bank images to fit the statistics on another.
    """
    wanted = line.settings.calibrate_explainer.evidence_anomalies
    anomalies = int((line.rows("tuning")["label"] == 1).sum())
    return 0 < wanted <= anomalies and len(line.bank_rows()) > 2


def load_models(line: Line) -> tuple[FamiliarityModel, Explainer]:
    """The line's familiarity and its explainer, on one network where both use the same."""
    settings = line.settings
    read = read_json(line.output("memory_bank", "bank.json"))
    backbone = line.backbone(settings.backbone, layers_read(read))
    explained = backbone if settings.explainer.backbone == settings.backbone else None
    bank = load_bank(line.output("memory_bank", "bank.safetensors"))
    asked, told = settings.calibrate_explainer.targets, settings.memory_bank
    explainer = build_explainer(
        settings.explainer.method,
        explained or line.backbone(settings.explainer.backbone),
        Memory(bank, settings.anomaly_type, read["neighbourhood"], tuple(read["layers"]))
        if explained and MEMORY in asked
        else None,
    )
    familiarity = FamiliarityModel(
        backbone,
        bank,
        settings.anomaly_type,
        told.neighbours,
        told.top_share,
        read["smoothing"],
        neighbourhood=read["neighbourhood"],
        layers=tuple(read["layers"]),
        companions=tuple(read["companions"]),
    )
    return familiarity, explainer


def image_tensors(line: Line, images: Iterator[Any]) -> Iterator[Tensor]:
    """Batches (N, 3, H, W) of decoded images."""
    size = line.settings.backbone.input_size
    for group in batches(images, images_at_once(size)):
        yield to_batch(group, size)


def _remember(
    familiarity: FamiliarityModel, images: Tensor, features: Mapping[str, Tensor], own: Numbers | None = None
) -> Remembered:
    """Ask the memory; ``features`` as they were seen before, empty where nobody saw any."""
    with torch.inference_mode():
        found = familiarity.score(features or familiarity.backbone(images), own)
        differences = familiarity.differences(images, found)
    nothing = images.new_empty(len(images), 0, *found.distances.shape[1:])
    return Remembered(found, nothing if differences is None else differences)


def _bank_parts(line: Line) -> tuple[Places, Places]:
    """Bank images that the statistics are fitted on, and others that show how normal images deviate."""
    images, most = len(line.bank_rows()), line.settings.calibrate_explainer.max_normals
    fitted = spread(images, min(most, -(-images // 2) if learns(line) else images))
    rest = np.setdiff1d(np.arange(images), fitted)
    return fitted, rest[spread(len(rest), min(2 * most, len(rest)))]


def _bank_batches(line: Line, places: Places) -> Iterator[tuple[Numbers, Tensor]]:
    """Batches of bank images, each with their numbers in the bank."""
    start = 0
    for batch in image_tensors(line, line.images(line.bank_rows().iloc[places])):
        yield places[start : start + len(batch)].astype(np.int32), batch
        start += len(batch)
