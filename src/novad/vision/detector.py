"""The detector: familiarity, novelty and their fusion, with thresholds, over a stream of images."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from novad.vision.calibration import conformal_p_values
from novad.vision.detection import Detection, NearestNormal, Thresholds
from novad.vision.fusion import hybrid_scores
from novad.vision.maps import fuse_maps
from novad.vision.models import FamiliarityModel, FusionModel, NoveltyModel, raw_scores
from novad.vision.preprocess import (
    CPU_BATCH,
    PixelArray,
    Size,
    batches,
    height_and_width,
    images_at_once,
    to_batch,
)

__all__ = ["Detector"]

# What few images ask of a GPU is over before the next step is asked for (docs/decisions/scoring-service.md).
GPU_BATCH = 64


class Detector:
    """A trained line's judge.

    Example:
        >>> detector = Detector.load("artifacts/brushed-metal/evaluate/detector")  # doctest: +SKIP
        >>> [result.decision for result in detector.score(images)]  # doctest: +SKIP
        ['PASS', 'FAIL']

    Args:
        line: product line.
        image_size: to which images are scaled, in pixels: height and width, or the side of a square.
        familiarity: model of the first question.
        novelty: model of the second.
        fusion: from both to a decision.
        digest: sha256 of the files it was loaded from; empty for one that was never saved.
    """

    def __init__(
        self,
        line: str,
        image_size: Size,
        familiarity: FamiliarityModel,
        novelty: NoveltyModel,
        fusion: FusionModel,
        digest: str = "",
    ) -> None:
        self.line, self.image_size, self.digest = line, height_and_width(image_size), digest
        self.familiarity, self.novelty, self.fusion = familiarity, novelty, fusion

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> "Detector":
        """Load a saved detector after checking the digest of every file.

        Args:
            folder: of its files.
            device: where it scores: ``cpu``, ``cuda``, ``cuda:1``; last digits differ between them.
        Raises:
            ConfigError: there is no such device.
            IntegrityError: a file is missing or is not the one recorded.
        """
        from novad.vision.detector_files import load_detector

        return load_detector(Path(folder), device)

    @property
    def device(self) -> torch.device:
        """Where it scores."""
        return self.familiarity.bank.vectors.device

    @property
    def thresholds(self) -> Thresholds:
        """Thresholds of the decision and the maps."""
        return self.fusion.thresholds

    def with_thresholds(self, fail: float, review: float, alpha: float) -> "Detector":
        """The same judge with another decision; scores, maps and their thresholds stay."""
        changed = replace(self.thresholds, fail=fail, review=review, alpha=alpha)
        fusion = replace(self.fusion, thresholds=changed)
        return Detector(
            self.line, self.image_size, self.familiarity, self.novelty, fusion, digest=self.digest
        )

    @property
    def backbone(self) -> str:
        """Architecture that judges familiarity."""
        return self.familiarity.backbone.architecture

    def score(self, images: Iterable[PixelArray], batch_size: int | None = None) -> Iterator[Detection]:
        """Judge images one batch at a time.

        Args:
            images: (H, W, 3) uint8 or uint16 arrays; sizes may differ.
            batch_size: images per pass at most, of large ones fewer; by default 8, on a GPU 64.
        Yields:
            One ``Detection`` per image, in order.
        Raises:
            ImageError: an array that is not an image; the message gives its position.
        """
        most = batch_size or (CPU_BATCH if self.device.type == "cpu" else GPU_BATCH)
        judged = 0
        for group in batches(images, images_at_once(self.image_size, most)):
            yield from self._judge(group, judged)
            judged += len(group)

    def _judge(self, group: Sequence[PixelArray], before: int) -> list[Detection]:
        pixels = to_batch(group, self.image_size, self.device, before)
        raw = raw_scores(self.familiarity, self.novelty, pixels)
        fusion, found = self.fusion, raw.familiarity
        familiarity = fusion.familiarity(found.scores.numpy(force=True))
        novelty = fusion.novelty(raw.novelty.numpy(force=True))
        hybrid = hybrid_scores(familiarity, novelty, fusion.weight)
        p_values = conformal_p_values(hybrid, fusion.normal_scores)
        fused = fuse_maps(
            fusion.familiarity_map(found.maps), fusion.novelty_map(raw.novelty_maps), fusion.map_weight
        )
        maps = {name: each.cpu() for name, each in fused.items()}
        distances, nearest = found.distances.cpu(), found.nearest.cpu()
        return [
            Detection(
                familiarity=float(familiarity[at]),
                novelty=float(novelty[at]),
                hybrid=float(hybrid[at]),
                p_value=float(p_values[at]),
                decision=self.thresholds.decide(float(hybrid[at])),
                nearest=self._nearest(distances[at], nearest[at]),
                size=(image.shape[0], image.shape[1]),
                coarse_maps={name: each[at].numpy().astype(np.float32) for name, each in maps.items()},
            )
            for at, image in enumerate(group)
        ]

    def _nearest(self, distances: Tensor, nearest: Tensor) -> NearestNormal:
        worst = int(distances.argmax())
        vector = int(nearest.reshape(-1)[worst])
        image, row, column = (int(part) for part in self.familiarity.bank.origins[vector])
        path, sha256 = self.familiarity.images[image]
        rows, columns = distances.shape
        distance = float(distances.reshape(-1)[worst])
        place = divmod(worst, columns)
        return NearestNormal(path, sha256, row, column, distance, (rows, columns), place)
