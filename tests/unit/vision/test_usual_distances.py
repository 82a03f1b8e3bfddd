"""Usual distances: laws of what is told place by place."""

from pathlib import Path

import torch

from novad.vision.familiarity import familiarity_scores
from novad.vision.memory_bank import fit_memory_bank, load_bank, save_bank
from novad.vision.pooling import smooth
from novad.vision.usual_distances import fit_usual_distances

SHAPE = (6, 7)


def seen(images: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Distances of ``images`` images: the border is twice as far as the rest, and varies twice as much."""
    generator = torch.Generator().manual_seed(seed)
    grid = 1 + 0.1 * torch.randn(images, *SHAPE, generator=generator)
    grid[:, [0, -1]] *= 2
    rows, columns = torch.meshgrid(torch.arange(6), torch.arange(7), indexing="ij")
    return grid, rows.expand_as(grid), columns.expand_as(grid)


def fit(images: int) -> tuple[torch.Tensor, torch.Tensor]:
    grid, rows, columns = seen(images)
    usual = fit_usual_distances(grid.flatten(), rows.flatten(), columns.flatten(), SHAPE)
    return grid, usual(grid)


def test_with_many_images_every_place_is_alike() -> None:
    grid, placed = fit(4000)
    before, after = grid.mean(0), placed.mean(0)
    assert before.max() / before.min() > 1.9
    assert after.max() - after.min() < 0.1 * (before.max() - before.min())
    assert abs(float(placed.mean()) - float(grid.mean())) < 0.05 * float(grid.mean())


def test_with_few_images_all_places_together_decide() -> None:
    grid, placed = fit(2)
    scale = (placed - placed.mean()) / (grid - grid.mean())
    assert float(scale.median()) > 0.9


def test_places_never_seen_are_average_ones() -> None:
    distances = torch.tensor([1.0, 2.0, 3.0])
    usual = fit_usual_distances(distances, torch.zeros(3, dtype=torch.int64), torch.arange(3), (40, 40))
    assert torch.allclose(usual.mean[30], torch.tensor(2.0))
    assert torch.allclose(usual.spread[30], distances.std(correction=0))


def test_equal_distances_stay_finite() -> None:
    rows, columns = torch.zeros(4, dtype=torch.int64), torch.arange(4)
    usual = fit_usual_distances(torch.ones(4), rows, columns, (1, 4))
    assert torch.isfinite(usual(torch.rand(2, 1, 4))).all()


def test_familiarity_is_judged_by_what_is_unusual_at_its_place_also_after_saving(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(4)
    source = torch.randn(16, 4, *SHAPE, generator=generator)
    source[:, :, 0] *= 5
    bank = fit_memory_bank(
        iter(source), 16, coreset_share=0.2, min_vectors=10, max_vectors=500, dimensions=0, whiten=0.0
    )
    save_bank(bank, tmp_path / "bank.safetensors")
    again = load_bank(tmp_path / "bank.safetensors")
    images = torch.randn(3, 4, *SHAPE, generator=generator)
    raw, _ = bank.search(bank.patches(images))
    assert bank.usual is not None
    placed = bank.usual(raw)
    assert not torch.allclose(placed, raw, atol=0.1)
    for each in (bank, again):
        found = familiarity_scores(each, images, 1, 0.1, smoothing=1.0)
        assert torch.allclose(found.distances, smooth(placed[:, None], 1.0)[:, 0], atol=1e-5)
