"""Memory residuals: figures of every direction against loops, and bank images that do not find themselves."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from novad.vision.memory_bank import MemoryBank
from novad.vision.patch_store import Whitening
from novad.vision.pooling import smooth
from novad.vision.residuals import FIGURES, residual_deviations


def test_figures_equal_loops_over_images_and_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    residuals = torch.randn(2, 12, 10, 3, generator=generator)
    distances = torch.rand(2, 12, 10, generator=generator)
    found = residual_deviations(residuals, distances).reshape(2, FIGURES, 3)
    for image in range(2):
        least = distances[image].flatten().argsort(descending=True)[:2]  # 2 % of 120 patches
        for direction in range(3):
            told = []
            for sigma in (0.0, 1.5):
                one = smooth(residuals[image, None, None, :, :, direction], sigma).flatten().sort().values
                high = [one[-1:].mean(), one[-12:].mean()]
                low = [-one[:1].mean(), -one[:12].mean()]
                told += high + low
            flat = residuals[image, :, :, direction].flatten()
            told += [flat[least].mean(), flat[least].square().mean(), flat.square().mean()]
            assert torch.allclose(found[image, :, direction], torch.stack(told), atol=1e-5)


@given(st.integers(0, 2**16), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_the_opposite_residual_swaps_the_sides(seed: int, height: int, width: int, directions: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    residuals = torch.randn(1, height, width, directions, generator=generator)
    distances = torch.rand(1, height, width, generator=generator)
    there = residual_deviations(residuals, distances).reshape(FIGURES, directions)
    back = residual_deviations(-residuals, distances).reshape(FIGURES, directions)
    swapped = [2, 3, 0, 1, 6, 7, 4, 5]
    assert torch.allclose(there[swapped], back[:8], atol=1e-6)
    assert torch.allclose(there[8], -back[8], atol=1e-6)
    assert torch.allclose(there[9:], back[9:], atol=1e-6)


def _bank() -> MemoryBank:
    whitening = Whitening(torch.tensor([1.0, 0, 0]), torch.tensor([[2.0, 0], [0, 1], [0, 1]]))
    origins = np.array([[0, 0, 0], [1, 0, 1], [1, 1, 0]], np.int32)
    return MemoryBank(whitening, torch.tensor([[0.0, 0], [4, 4], [0, 1]]), origins)


def test_a_residual_is_as_long_as_the_distance() -> None:
    bank, grids = _bank(), torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    patches = bank.patches(grids)
    distances, nearest = bank.search(patches)
    residuals = bank.residuals(patches, nearest)
    assert residuals.shape == (2, 4, 5, 2)
    assert torch.allclose(residuals.norm(dim=3), distances, atol=1e-5)
    vector = bank.vectors[int(nearest[1, 2, 3])]
    assert torch.allclose(residuals[1, 2, 3], bank.whitening(grids[1, None, :, 2, 3])[0] - vector)


def test_a_bank_image_is_compared_with_the_others() -> None:
    bank, grids = _bank(), torch.zeros(2, 3, 1, 2)
    grids[:, 0] = 1  # every patch lies on the vector of image 0
    distances, nearest = bank.search_foreign(bank.patches(grids), np.array([0, 1], np.int32))
    assert nearest.tolist() == [[[2, 2]], [[0, 0]]]
    assert distances.tolist() == [[[1, 1]], [[0, 0]]]
