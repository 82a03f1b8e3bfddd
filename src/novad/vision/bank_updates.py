"""Normal images into a memory bank and out of it, without building it anew.

A bank knows its covering radius r: no patch seen is farther from its vectors. Updates keep that promise, and
every vector they add was farther than r from all before it. What a rebuild could do better is bounded:

- Vectors pairwise r apart, as greedy k-center leaves them (Gonzalez 1985), are at most one to a ball of less
  than r / 2. So in the same space every bank of fewer vectors has a covering radius of at least r / 2: the
  updated one is within a factor of two of the best smaller one. Many centres per pass leave some vectors
  closer; then smaller means fewer than are pairwise r apart. A bank of more vectors may cover better.
- A bank's nearest vector is at most its radius farther than the nearest of all patches seen. So nearest
  distances to two banks of radii r and s over the same patches differ by at most max(r, s) for any query.

Whitening is kept: mean and covariance still hold a removed image as one of many. Only a rebuild frees it of
them. Companions of a bank are banks of their own and are not carried over, nor is what was measured of its
images: scale, displacement and appearance.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from novad.errors import CalibrationError
from novad.vision.coreset import greedy_cover
from novad.vision.memory_bank import SEARCH_BLOCK, USUAL_PATCHES, MemoryBank
from novad.vision.usual_distances import fit_usual_distances

__all__ = ["add_images", "refit_usual", "remove_images"]

Origins = NDArray[np.int32]

# A patch at the radius itself is covered; two ways to sum its distance differ in single precision.
ROUNDING = 1e-4


def add_images(
    bank: MemoryBank, grids: Iterable[Tensor], first_image_number: int, radius: float | None = None
) -> MemoryBank:
    """The bank with verified normal images in it; whitening and usual distances stay as they were.

    Args:
        bank: is not changed.
        grids: one (C, H, W) tensor of raw patch features per image; read once.
        first_image_number: origin of the first one's vectors; the others count on.
        radius: farther patches become vectors, in the bank's space; by default the bank's covering radius.
    Raises:
        CalibrationError: a number that the bank has already, features that do not fit, or no known radius.
    """
    if (bank.origins[:, 0] >= first_image_number).any():
        raise CalibrationError(
            f"the bank has images up to number {bank.origins[:, 0].max()}: new ones must come after them, "
            f"not from {first_image_number} on"
        )
    return _covered(bank, enumerate(grids, first_image_number), _asked(bank, radius))


def remove_images(
    bank: MemoryBank,
    images: Collection[int],
    remaining: Mapping[int, Tensor] | None = None,
    radius: float | None = None,
) -> MemoryBank:
    """The bank without any vector of these images.

    With the patches of the images that stay, they are covered again, and usual distances are measured anew.
    Without them, usual distances still hold the removed images among others, and the covering radius grows: a
    patch within r of a removed vector is, by the triangle inequality, within r plus that vector's distance to
    the vectors left.

    Args:
        bank: is not changed.
        images: numbers, as in ``bank.origins``; one without vectors has none to remove.
        remaining: number to (C, H, W) raw patch features of every image that stays; some are read twice.
        radius: to cover again by, in the bank's space; by default the bank's covering radius.
    Raises:
        CalibrationError: no vector is left, a removed image is among the remaining, features that do not fit,
            or no known radius to cover by.
    """
    gone = np.isin(bank.origins[:, 0], list(images))
    if gone.all():
        raise CalibrationError("without the images to remove no vector is left: build another bank")
    kept, removed = _part(bank, ~gone), _part(bank, gone)
    if remaining is None:
        if bank.radius is not None:
            kept.radius = bank.radius + _farthest(kept, removed.vectors)
        return kept
    if both := sorted(set(images) & set(remaining)):
        raise CalibrationError(f"image {both[0]} is to be removed and among the remaining")
    asked = _asked(bank, radius)
    promised = bank.radius is not None and bank.radius <= asked
    covered = _covered(kept, remaining.items(), asked, removed if promised else None)
    return covered if bank.usual is None else refit_usual(covered, remaining)


def refit_usual(bank: MemoryBank, grids: Mapping[int, Tensor]) -> MemoryBank:
    """The bank with usual distances of these images alone, each to the vectors of other images.

    Args:
        bank: is not changed.
        grids: number to (C, H, W) raw patch features; at most 64 of them, evenly spread, are asked.
    Raises:
        CalibrationError: no image, or features that do not fit.
    """
    if not grids:
        raise CalibrationError("no normal image to measure usual distances on")
    numbers, most = sorted(grids), min(len(grids), USUAL_PATCHES)
    asked = [numbers[at * len(numbers) // most] for at in range(most)]
    distances, places = [], []
    for patches, origins in _blocks(bank, ((number, grids[number]) for number in asked)):
        distances.append(bank.nearest_foreign(patches, origins[:, 0])[0])
        places.append(origins[:, 1:].astype(np.int64))
    rows, columns = torch.from_numpy(np.concatenate(places)).unbind(1)
    height, width = grids[asked[0]].shape[1:]
    usual = fit_usual_distances(torch.from_numpy(np.concatenate(distances)), rows, columns, (height, width))
    return MemoryBank(bank.whitening, bank.vectors, bank.origins, usual, bank.radius)


def _covered(
    bank: MemoryBank, grids: Iterable[tuple[int, Tensor]], radius: float, gone: MemoryBank | None = None
) -> MemoryBank:
    """The bank with those patches as vectors, chosen greedily, that leave none farther than ``radius``.

    Args:
        bank: whose radius, if known, still holds of other patches than these.
        grids: image number and (C, H, W) raw features.
        radius: in the bank's space.
        gone: vectors that covered these patches together with the bank; None where nothing was promised.
    """
    limit = radius * (1 + ROUNDING)
    far, distances, origins = [bank.vectors[:0].half()], [torch.zeros(0)], [bank.origins[:0]]
    for patches, places in _blocks(bank, grids):
        suspects = torch.arange(len(patches))
        if gone is not None:
            # Out of reach of what is gone, a patch was covered by what is left; and few are searched fast.
            suspects = suspects[_distances(gone, patches) <= limit]
        nearest = _distances(bank, patches[suspects])
        at = suspects[nearest > limit]
        far.append(patches[at])
        distances.append(nearest[nearest > limit])
        origins.append(places[at.numpy()])
    uncovered = torch.cat(far)
    chosen = greedy_cover(uncovered, torch.cat(distances), radius)
    return MemoryBank(
        bank.whitening,
        torch.cat([bank.vectors, uncovered[torch.from_numpy(chosen)].float()]),
        np.concatenate([bank.origins, np.concatenate(origins)[chosen]]),
        bank.usual,
        max(radius, bank.radius or 0.0),
    )


def _blocks(bank: MemoryBank, grids: Iterable[tuple[int, Tensor]]) -> Iterator[tuple[Tensor, Origins]]:
    """(n, D) whitened patches and (n, 3) origins, images joined: long blocks are searched far faster."""
    patches: list[Tensor] = []
    origins: list[Origins] = []
    for number, grid in grids:
        patches.append(_patches(bank, number, grid))
        origins.append(_places(number, *grid.shape[1:]))
        if sum(map(len, origins)) >= SEARCH_BLOCK:
            yield torch.cat(patches), np.concatenate(origins)
            patches, origins = [], []
    if patches:
        yield torch.cat(patches), np.concatenate(origins)


def _part(bank: MemoryBank, chosen: NDArray[np.bool_]) -> MemoryBank:
    """Some of the vectors; how far they leave patches is not known."""
    vectors = bank.vectors[torch.from_numpy(chosen)]
    return MemoryBank(bank.whitening, vectors, bank.origins[chosen], bank.usual)


def _asked(bank: MemoryBank, radius: float | None) -> float:
    known = bank.radius if radius is None else radius
    if known is None:
        raise CalibrationError(
            "this bank does not know its covering radius: build it anew, or tell the radius"
        )
    return known


def _patches(bank: MemoryBank, number: int, grid: Tensor) -> Tensor:
    """(C, H, W) raw features to (H * W, D) whitened ones, rounded as when the bank was built."""
    if len(grid) != len(bank.whitening.mean):
        raise CalibrationError(
            f"image {number}: {len(grid)} features per patch where the bank has {len(bank.whitening.mean)}"
        )
    if not torch.isfinite(grid).all():
        raise CalibrationError(f"image {number}: its features are not finite")
    return bank.whitening(grid.reshape(len(grid), -1).T.half()).half()


def _distances(bank: MemoryBank, patches: Tensor) -> Tensor:
    """(n,) Euclidean, of whitened patches to their nearest vectors; infinite where there are none."""
    if not len(bank.vectors):
        return torch.full((len(patches),), torch.inf)
    return torch.from_numpy(bank.nearest_foreign(patches, np.full(len(patches), -1, np.int32))[0])


def _farthest(bank: MemoryBank, patches: Tensor) -> float:
    """Largest of their distances to the bank; 0 without any."""
    return float(_distances(bank, patches).max()) if len(patches) else 0.0


def _places(number: int, height: int, width: int) -> Origins:
    """(height * width, 3) image, row and column of every patch."""
    at = np.arange(height * width, dtype=np.int32)
    return np.stack([np.full_like(at, number), at // width, at % width], 1)
