"""How good the explanations of a detector are on the test split."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novad.evaluation.explanation import energy_in_mask, pointing_game, randomisation_similarity
from novad.vision import Detector
from novad.vision.explainers import Memory, build_explainer
from novad.vision.preprocess import to_batch
from novad.vision.randomised import randomised

__all__ = ["ExplanationFigures"]

MOST_COMPLETENESS = 16
MOST_RANDOMISED = 4


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
        self._errors: list[float] = []
        self._images: list[Any] = []

    def add(self, image: Any, maps: dict[str, NDArray[np.float32]], mask: NDArray[np.bool_] | None) -> None:
        """Take one test image with its maps, and its mask where it is a defect that has one."""
        if len(self._errors) < MOST_COMPLETENESS:
            explainer, target = self.detector.novelty.explainer, self.detector.novelty.shown.target
            explanation = explainer.explain(to_batch([image], self.detector.image_size), target)
            self._errors.append(float(explanation.completeness_error()))
        if mask is None:
            return
        if len(self._images) < MOST_RANDOMISED:
            self._images.append(image)
        for kind, heat in maps.items():
            above = np.maximum(heat - np.median(heat), 0)
            self._energy.setdefault(kind, []).append(energy_in_mask(above, mask))
            self._pointing.setdefault(kind, []).append(pointing_game(heat, mask))

    def finish(self) -> dict[str, Any]:
        """Figures for ``metrics.json``; localisation is null without masks."""
        return {
            "exact": self.detector.novelty.explainer.exact,
            "completeness_error_max": max(self._errors, default=None),
            "energy_in_mask": _means(self._energy),
            "pointing_game": _means(self._pointing),
            "randomisation_similarity": self._randomisation(),
        }

    def _randomisation(self) -> float | None:
        """Mean rank correlation between maps of the trained and of a randomised network; near 0 is sane."""
        if not self._images:
            return None
        novelty, familiarity = self.detector.novelty, self.detector.familiarity
        backbone = novelty.explainer.backbone
        memory = Memory(familiarity.bank, familiarity.anomaly_type)
        explainer = build_explainer(
            novelty.explainer.method,
            randomised(backbone, self.seed),
            memory if backbone is familiarity.backbone else None,
        )
        other = replace(novelty, explainer=explainer)
        single = [to_batch([image], self.detector.image_size) for image in self._images]
        pairs = ([each.explain(image).maps[0].numpy() for each in (novelty, other)] for image in single)
        return round(float(np.mean([randomisation_similarity(mine, random) for mine, random in pairs])), 4)


def _means(figures: dict[str, list[Any]]) -> dict[str, float] | None:
    if not figures:
        return None
    return {kind: round(float(np.mean(values)), 6) for kind, values in figures.items()}
