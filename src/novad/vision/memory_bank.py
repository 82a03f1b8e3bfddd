"""Memory bank: whitened coreset of normal patches that remembers where each of its vectors was seen."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from novad.vision.coreset import greedy_coreset
from novad.vision.patch_store import PatchStore, Whitening, store_patches
from novad.vision.search_index import EXACT_UP_TO, build_index
from novad.vision.tensor_files import read_tensors
from novad.vision.usual_distances import UsualDistances, fit_usual_distances

__all__ = [
    "BankEstimate",
    "MemoryBank",
    "bank_size",
    "build_bank",
    "estimate",
    "fit_memory_bank",
    "load_bank",
    "save_bank",
]

Floats = NDArray[np.float32]

# What distances are usual is told by so many patches per place, each by its nearest so many vectors.
USUAL_PATCHES = 64
NEIGHBOURS_SEARCHED = 16
SEARCH_BLOCK = 16_384
COMPANION = "companion{}."


@dataclass(frozen=True)
class BankEstimate:
    """What building a bank will hold in memory, told before it starts."""

    patches: int
    vectors: int
    megabytes: float


def estimate(
    images: int, grid: tuple[int, int], channels: int, dimensions: int, vectors: int, max_patches: int
) -> BankEstimate:
    """Patches kept, vectors chosen and peak megabytes of building the bank.

    Patches are held in half precision, raw and whitened, with origin, norm and distance of each. Vectors are
    held in single precision twice, by the bank and by its index.

    Args:
        images: of the bank.
        grid: patches per column and row of an image.
        channels: of a raw patch.
        dimensions: principal directions kept; 0 keeps all.
        vectors: most that are chosen.
        max_patches: most patches kept.
    """
    kept, size = min(images * grid[0] * grid[1], max_patches), dimensions or channels
    chosen = min(vectors, kept)
    return BankEstimate(
        kept, chosen, round((kept * (2 * channels + 2 * size + 20) + chosen * 8 * size) / 2**20, 1)
    )


def bank_size(patches: int, share: float, smallest: int, largest: int) -> int:
    """Vectors that a bank of ``patches`` normal patches keeps: their share, within the bounds."""
    return max(smallest, min(largest, round(patches * share)))


class MemoryBank:
    """Normal vectors with nearest-neighbour search, exact up to some tens of thousands, or on a GPU.

    Args:
        whitening: maps raw patches to the bank's space.
        vectors: (k, D) chosen patches.
        origins: (k, 3) image, row and column of each.
        usual: distances of normal patches, place by place; None where nobody measured them.
        radius: no patch that the bank was built from is farther from its vectors, in the bank's space; None
            where nobody measured it.
        exact_up_to: more vectors are searched by inverted lists, built here, if they lie in main memory.

    Attributes:
        appearance: (k, A) what each vector's patch looked like; None where nobody looked.
        displacement: (2,) how far features lie from the pixels that they tell of, see ``places``; None where
            nobody measured it.
        scale: (2,) median and spread of the scores of its own images, each by the vectors of the others; None
            where nobody asked.
        companions: banks of other layers' patches of the same images, which are asked beside this one.
    """

    def __init__(
        self,
        whitening: Whitening,
        vectors: Tensor,
        origins: NDArray[np.int32],
        usual: UsualDistances | None = None,
        radius: float | None = None,
        exact_up_to: int = EXACT_UP_TO,
    ) -> None:
        self.whitening, self.vectors, self.origins = whitening, vectors.float().contiguous(), origins
        self.usual, self.radius = usual, radius
        self.appearance: Tensor | None = None
        self.displacement: Tensor | None = None
        self.scale: Tensor | None = None
        self.companions: tuple[MemoryBank, ...] = ()
        self._index = build_index(self.vectors, exact_up_to)

    @property
    def lists(self) -> tuple[int, int]:
        """Lists of vectors that a search goes through, and how many there are; zeros where it is exact."""
        return self._index.lists

    def patches(self, grids: Tensor) -> Tensor:
        """(N, C, H, W) raw patch features to (N, H, W, D) in the bank's space."""
        return self.whitening(grids.permute(0, 2, 3, 1))

    def search(self, patches: Tensor, neighbours: int = 1) -> tuple[Tensor, Tensor]:
        """Distance of every patch to its normal neighbours, and which they are.

        Args:
            patches: (N, H, W, D) in the bank's space.
            neighbours: how many; distances are averaged over them.
        Returns:
            (N, H, W) mean Euclidean distance and (N, H, W) position of the nearest vector in the bank.
        """
        shape = patches.shape[:3]
        most = min(neighbours, len(self.vectors))
        squared, nearest = self._index.search(patches.flatten(0, 2), most)
        return squared.clamp_min(0).sqrt().mean(dim=1).reshape(shape), nearest[:, 0].reshape(shape)

    def search_foreign(self, patches: Tensor, images: NDArray[np.int32]) -> tuple[Tensor, Tensor]:
        """``search`` for bank images, each of which must not find its own vectors.

        Args:
            patches: (N, H, W, D) in the bank's space.
            images: (N,) number of each in the bank.
        """
        shape = patches.shape[:3]
        distances, nearest = self.nearest_foreign(patches.flatten(0, 2), images.repeat(shape[1] * shape[2]))
        there = (torch.from_numpy(each).to(patches.device) for each in (distances, nearest))
        distant, near = (each.reshape(shape) for each in there)
        return distant, near

    def residuals(self, patches: Tensor, nearest: Tensor) -> Tensor:
        """What the nearest vector does not explain of every patch.

        Args:
            patches: (N, H, W, D) in the bank's space.
            nearest: (N, H, W) positions in the bank.
        Returns:
            (N, H, W, D); its Euclidean norm is the distance.
        """
        return patches - self.vectors[nearest]

    def nearest_foreign(
        self, patches: Tensor, images: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Nearest vector that is not of a patch's own image.

        Args:
            patches: (n, D) whitened.
            images: (n,) bank image that each patch belongs to; -1 for none.
        Returns:
            (n,) Euclidean distances and (n,) positions in the bank; where it holds no vector of another
            image, those of an own one.
        """
        searched = min(NEIGHBOURS_SEARCHED, len(self.vectors)) if (images >= 0).any() else 1
        found = self._index.search(patches.float(), searched)
        squared, nearest = (each.numpy(force=True) for each in found)
        foreign = self.origins[nearest, 0] != images[:, None]
        first = np.arange(len(foreign)), foreign.argmax(axis=1)
        distances, positions = np.sqrt(np.maximum(squared[first], 0)), np.asarray(nearest[first])
        # Of few images each owns many vectors, and the searched ones may all be its own.
        crowded = ~foreign.any(axis=1)
        for image in np.unique(images[crowded]):
            asked, others = crowded & (images == image), np.flatnonzero(self.origins[:, 0] != image)
            if len(others):
                found = self.nearest_among(others, patches[torch.from_numpy(asked)])
                distances[asked], positions[asked] = (each.numpy(force=True) for each in found)
        return distances, positions

    def nearest_among(self, positions: NDArray[np.int64], patches: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest of some vectors, exact and by blocks.

        Args:
            positions: (v,) of those vectors in the bank.
            patches: (n, D) whitened.
        Returns:
            (n,) Euclidean distances and (n,) positions in the bank.
        """
        asked = torch.from_numpy(positions).to(self.vectors.device)
        vectors, blocks = self.vectors[asked], torch.split(patches.float(), SEARCH_BLOCK)
        found = [torch.cdist(block, vectors).min(dim=1) for block in blocks]
        distances, at = (torch.cat(each) for each in zip(*found, strict=True))
        return distances, asked[at]


def fit_memory_bank(
    grids: Iterable[Tensor],
    images: int,
    *,
    coreset_share: float,
    min_vectors: int,
    max_vectors: int,
    dimensions: int,
    whiten: float,
    max_patches: int = 400_000,
    seed: int = 0,
) -> MemoryBank:
    """Build the bank from a stream of normal images; see ``store_patches`` and ``build_bank``.

    Raises:
        CalibrationError: no image, or features that are not finite.
    """
    return build_bank(
        store_patches(grids, images, max_patches),
        coreset_share=coreset_share,
        min_vectors=min_vectors,
        max_vectors=max_vectors,
        dimensions=dimensions,
        whiten=whiten,
        seed=seed,
    )


def build_bank(
    store: PatchStore,
    *,
    coreset_share: float,
    min_vectors: int,
    max_vectors: int,
    dimensions: int,
    whiten: float,
    seed: int,
) -> MemoryBank:
    """Build the bank from stored patches.

    Args:
        store: of all images.
        coreset_share: share of all patches that the bank keeps.
        min_vectors: at least so many, where there are as many.
        max_vectors: at most so many.
        dimensions: principal directions kept; 0 keeps all.
        whiten: see ``PatchStore.whitening``.
        seed: of the coreset's first centre.
    """
    whitening = store.whitening(dimensions, whiten)
    mapped, origins = store.whitened(whitening), store.origins()
    count = bank_size(len(store) * store.positions, coreset_share, min_vectors, max_vectors)
    coreset = greedy_coreset(mapped, count, seed=seed)
    vectors = mapped[torch.from_numpy(coreset.chosen)]
    bank = MemoryBank(whitening, vectors, origins[coreset.chosen], radius=coreset.radius)
    bank.usual = _usual_distances(bank, mapped, origins, store.shape, USUAL_PATCHES * store.step)
    return bank


def _usual_distances(
    bank: MemoryBank, patches: Tensor, origins: NDArray[np.int32], shape: tuple[int, int], most: int
) -> UsualDistances:
    """From the kept patches of at most so many images, evenly spread."""
    images = int(origins[-1, 0]) + 1
    asked = np.arange(min(images, most)) * images // min(images, most)
    at = np.flatnonzero(np.isin(origins[:, 0], asked))
    # By blocks: in single precision all of them would take more memory than the estimate tells.
    blocks = np.split(at, range(SEARCH_BLOCK, len(at), SEARCH_BLOCK))
    found = [bank.nearest_foreign(patches[torch.from_numpy(each)], origins[each, 0])[0] for each in blocks]
    distances = torch.from_numpy(np.concatenate(found))
    rows, columns = torch.from_numpy(origins[at, 1:].astype(np.int64)).unbind(1)
    return fit_usual_distances(distances, rows, columns, shape)


def save_bank(bank: MemoryBank, path: Path) -> None:
    """Write the bank as safetensors; equal banks are equal bytes."""
    save_file({name: tensor.contiguous() for name, tensor in _tensors(bank).items()}, path)


def _tensors(bank: MemoryBank) -> dict[str, Tensor]:
    tensors = {
        "vectors": bank.vectors,
        "origins": torch.from_numpy(np.ascontiguousarray(bank.origins)),
        "mean": bank.whitening.mean,
        "matrix": bank.whitening.matrix,
    }
    if bank.usual is not None:
        tensors |= {f"usual.{name}": tensor for name, tensor in vars(bank.usual).items()}
    if bank.radius is not None:
        tensors["radius"] = torch.tensor(bank.radius, dtype=torch.float64)
    if bank.appearance is not None:
        tensors["appearance"] = bank.appearance
    told = {"displacement": bank.displacement, "scale": bank.scale}
    tensors |= {name: tensor for name, tensor in told.items() if tensor is not None}
    for number, companion in enumerate(bank.companions):
        prefix = COMPANION.format(number)
        tensors |= {prefix + name: tensor for name, tensor in _tensors(companion).items()}
    return tensors


def load_bank(path: Path, sha256: str | None = None, device: str = "cpu") -> MemoryBank:
    """Read a bank that ``save_bank`` wrote; banks of before know no covering radius and no appearance.

    Raises:
        IntegrityError: the file has another digest than the one named, or holds no tensors.
    """
    return _bank_of(read_tensors(path, sha256, device))


def _bank_of(tensors: Mapping[str, Tensor]) -> MemoryBank:
    whitening = Whitening(tensors["mean"], tensors["matrix"])
    moments = _below("usual.", tensors)
    usual = UsualDistances(**moments) if moments else None
    radius = float(tensors["radius"]) if "radius" in tensors else None
    bank = MemoryBank(whitening, tensors["vectors"], tensors["origins"].numpy(force=True), usual, radius)
    bank.appearance = tensors.get("appearance")
    bank.displacement, bank.scale = tensors.get("displacement"), tensors.get("scale")
    beside = (_below(COMPANION.format(number), tensors) for number in count())
    bank.companions = tuple(map(_bank_of, takewhile(bool, beside)))
    return bank


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
