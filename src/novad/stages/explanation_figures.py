"""How good the explanations of a detector are on the test split."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d

from novad.evaluation.explanation import energy_in_mask, grown, pointing_game, randomisation_similarity
from novad.vision import Detector
from novad.vision.explainers import Explainer, Memory, build_explainer
from novad.vision.novelty import map_step
from novad.vision.preprocess import to_batch
from novad.vision.randomised import randomised

__all__ = ["ExplanationFigures"]

MOST_COMPLETENESS = 16
MOST_RANDOMISED = 4
# Of the longer side: Zhang et al. (2018) let 15 pixels pass, on photographs of some 500 by 375.
NEAR = 0.03


class ExplanationFigures:
    """Collects completeness, localisation and the randomisation sanity check (Adebayo et al. 2018).

    Args:
        detector: whose novelty is explained.
        seed: of the randomised weights.
    """

    def __init__(self, detector: Detector, seed: int) -> None:
        self.detector, self.seed = detector, seed
        self._energy: dict[str, list[float]] = {}
        self._pointing: dict[str, list[bool]] = {}
        self._near: dict[str, list[bool]] = {}
        self._errors: list[float] = []
        self._images: list[Any] = []

    def add(self, image: Any, maps: dict[str, NDArray[np.float32]], mask: NDArray[np.bool_] | None) -> None:
        """Take one test image with its maps, and its mask where it is a defect that has one."""
        if len(self._errors) < MOST_COMPLETENESS:
            explainer, target = self.detector.novelty.explainer, self.detector.novelty.target
            explanation = explainer.explain(to_batch([image], self.detector.image_size), target)
            self._errors.append(float(explanation.completeness_error()))
        if mask is None:
            return
        if len(self._images) < MOST_RANDOMISED:
            self._images.append(image)
        near = grown(mask, NEAR * max(mask.shape))
        for kind, heat in maps.items():
            above = np.maximum(heat - np.median(heat), 0)
            self._energy.setdefault(kind, []).append(energy_in_mask(above, mask))
            self._pointing.setdefault(kind, []).append(pointing_game(heat, mask))
            self._near.setdefault(kind, []).append(pointing_game(heat, near))

    def finish(self) -> dict[str, Any]:
        """Figures for ``metrics.json``; localisation is null without masks."""
        return {
            "exact": self.detector.novelty.explainer.exact,
            "completeness_error_max": max(self._errors, default=None),
            "energy_in_mask": _means(self._energy),
            "pointing_game": _means(self._pointing),
            "pointing_game_near": _means(self._near),
            "randomisation_similarity": self._randomisation(),
        }

    def _randomisation(self) -> float | None:
        """Mean rank correlation of explanations by the trained and a random network; near 0 is sane."""
        if not self._images:
            return None
        explainer, familiarity = self.detector.novelty.explainer, self.detector.familiarity
        memory = Memory(
            familiarity.bank, familiarity.anomaly_type, familiarity.neighbourhood, familiarity.layers
        )
        other = build_explainer(
            explainer.method,
            randomised(explainer.backbone, self.seed),
            memory if explainer.backbone is familiarity.backbone else None,
        )
        pairs = ([self._contribution(each, image) for each in (explainer, other)] for image in self._images)
        return round(float(np.mean([randomisation_similarity(mine, random) for mine, random in pairs])), 4)

    def _contribution(self, explainer: Explainer, image: Any) -> NDArray[np.float32]:
        """(h, w) contribution of the image's pixels, as coarse as a map."""
        size = self.detector.image_size
        explained = explainer.explain(to_batch([image], size), self.detector.novelty.target).contribution
        pooled: NDArray[np.float32] = avg_pool2d(explained, map_step(size))[0].numpy()
        return pooled


def _means(figures: dict[str, list[Any]]) -> dict[str, float] | None:
    if not figures:
        return None
    return {kind: round(float(np.mean(values)), 6) for kind, values in figures.items()}
