"""Where maps are drawn: features lie beside what they tell of, which is measured and taken back."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from novad.vision.backbones import BcosBackbone
from novad.vision.familiarity import familiarity_scores, feature_grids
from novad.vision.memory_bank import MemoryBank, load_bank, save_bank
from novad.vision.places import displacement, moved_back
from small_bank import small_bank

HEIGHT, WIDTH = 112, 168


def noise(images: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 + 0.2 * torch.rand(images, 3, HEIGHT, WIDTH, generator=generator)


@given(st.integers(-6, 12), st.integers(-6, 12), st.sampled_from([2, 4, 8]))
def test_what_a_network_displaces_is_measured(down: int, right: int, stride: int) -> None:
    def grids(images: Tensor) -> Tensor:
        return F.avg_pool2d(images.roll((down, right), (2, 3)), stride)

    found = displacement(grids, noise(4, 0), seed=0)
    expected = torch.tensor([down / HEIGHT, right / WIDTH])
    assert float((found - expected).abs().max()) < 0.2 * stride / HEIGHT


def test_images_in_which_nothing_changes_say_nothing() -> None:
    def grids(images: Tensor) -> Tensor:
        return F.avg_pool2d(images.roll(3, 2), 4)

    seen, black = noise(3, 0), torch.zeros(1, 3, HEIGHT, WIDTH)
    both = displacement(grids, torch.cat([seen, black]), seed=1)
    assert torch.isfinite(both).all()
    assert float((displacement(grids, seen, seed=1) - both).abs().max()) < 0.01
    assert torch.equal(displacement(grids, black, seed=1), torch.zeros(2))


@given(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_a_map_is_moved_by_what_its_features_are_displaced(down: float, right: float) -> None:
    rows, columns = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(60) + 0.5, indexing="ij")
    centre = torch.tensor([20.0, 30.0])

    def blob(at: Tensor) -> Tensor:
        return torch.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / 50)[None]

    by = torch.tensor([down, right])
    moved = moved_back(blob(centre + by * torch.tensor([40.0, 60.0])), by)
    assert float((moved - blob(centre)).abs().max()) < 0.02


def test_nothing_moves_where_nothing_is_displaced_and_borders_are_repeated() -> None:
    maps = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved_back(maps, torch.zeros(2)), maps)
    far = moved_back(maps, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(far, maps[:, :, -1:].expand_as(maps))


@pytest.fixture(scope="module")
def bank(bundled_backbone: BcosBackbone) -> MemoryBank:
    def grids(images: Tensor) -> Tensor:
        return feature_grids(bundled_backbone(images), "sensory")

    with torch.inference_mode():
        images = noise(8, 2)
        made = small_bank(grids(images), share=0.3, least=50)
        made.displacement = displacement(grids, images, seed=0)
    return made


def test_familiarity_of_the_bundled_network_is_drawn_on_the_defect(
    bank: MemoryBank, bundled_backbone: BcosBackbone, tmp_path: Path
) -> None:
    image = noise(1, 9)
    image[:, :, 40:56, 80:96] *= 0.2
    with torch.inference_mode():
        found = familiarity_scores(bank, feature_grids(bundled_backbone(image), "sensory"), 1, 0.01)
    beside, drawn = (_centre(heat[0]) for heat in (found.distances, found.maps))
    # Its features of stride 8 lie five pixels below and right of what they tell of.
    assert (beside - np.array([48, 88])).min() > 3
    assert np.abs(drawn - np.array([48, 88])).max() < 2
    save_bank(bank, tmp_path / "bank")
    loaded = load_bank(tmp_path / "bank")
    assert loaded.displacement is not None
    assert bank.displacement is not None
    assert torch.equal(loaded.displacement, bank.displacement)


def test_a_bank_of_before_draws_distances_as_they_lie(
    bank: MemoryBank, bundled_backbone: BcosBackbone
) -> None:
    old = MemoryBank(bank.whitening, bank.vectors, bank.origins, bank.usual)
    with torch.inference_mode():
        grids = feature_grids(bundled_backbone(noise(1, 9)), "sensory")
        before, now = (familiarity_scores(each, grids, 1, 0.01) for each in (old, bank))
    assert torch.equal(before.maps, before.distances)
    assert torch.equal(before.distances, now.distances)
    assert torch.equal(before.scores, now.scores)


def _centre(heat: Tensor) -> np.ndarray:
    """Row and column of the image, in pixels, around which a map is highest."""
    high = (heat - heat.quantile(0.9)).clamp_min(0)
    rows, columns = (torch.arange(length) + 0.5 for length in heat.shape)
    row, column = (high.sum(1) @ rows) / high.sum(), (high.sum(0) @ columns) / high.sum()
    return np.array([float(row) * HEIGHT / heat.shape[0], float(column) * WIDTH / heat.shape[1]])
