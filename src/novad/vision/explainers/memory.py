"""What a memory bank does not explain of features: the gap from each patch to its nearest normal one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from novad.vision.familiarity import feature_grids
from novad.vision.memory_bank import MemoryBank
from novad.vision.patch_features import NEIGHBOURHOOD

__all__ = ["MEMORY", "Memory"]

MEMORY = "memory"


@dataclass(frozen=True)
class Memory:
    """The bank as an explanation reads it.

    Attributes:
        bank: of the explained network's own features.
        anomaly_type: how features become patches.
        neighbourhood: side of the square that features are averaged over.
        layers: that the bank compares; by default all that are read.
        own: bank image that each image of the next batch is, and whose vectors it must not meet; empty for
            images that the bank has not seen.
    """

    bank: MemoryBank
    anomaly_type: str
    neighbourhood: int = NEIGHBOURHOOD
    layers: tuple[str, ...] = ()
    own: tuple[int, ...] = ()

    def without(self, images: Sequence[int]) -> "Memory":
        """The memory for a batch of bank images: each meets the vectors of the others alone."""
        return replace(self, own=tuple(images))

    def gaps(self, features: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Patches in the bank's directions, and how they differ from their nearest normal vectors.

        Args:
            features: (N, C_l, H_l, W_l) of the layers that the backbone is read at.
        Returns:
            (N, h w, D) patches, linear in the features and not centred, and (N, h w, D) gaps, detached.
        """
        grids = feature_grids(features, self.anomaly_type, self.neighbourhood, self.layers)
        whitening = self.bank.whitening
        patches = grids.flatten(2).transpose(1, 2) @ whitening.matrix
        seen = (patches.detach() - whitening.mean @ whitening.matrix).flatten(0, 1)
        own = np.asarray(self.own or [-1] * len(grids), np.int32)
        _, nearest = self.bank.nearest_foreign(seen, own.repeat(patches.shape[1]))
        return patches, (seen - self.bank.vectors[nearest]).reshape(patches.shape)
