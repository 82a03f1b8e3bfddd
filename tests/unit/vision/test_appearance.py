"""Appearance: pooled pixels against loops, and bank vectors that remember what their patches looked like."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from novad.errors import CalibrationError
from novad.vision.appearance import (
    appearance,
    fit_appearance_novelty,
    vector_appearance,
)
from novad.vision.memory_bank import MemoryBank, load_bank, save_bank
from novad.vision.models import FamiliarityModel
from novad.vision.patch_store import Whitening
from novad.vision.residuals import FIGURES, residual_deviations


def _random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_figures_of_a_patch_and_its_neighbours_equal_loops() -> None:
    images = _random(2, 3, 24, 24)
    found = appearance(images, (6, 6))
    assert found.shape == (2, 8, 6, 6)
    part = images[1, :, 4:16, 12:24]  # patch (2, 4) of 4 x 4 pixels with its eight neighbours
    grey = images[1].mean(0)
    across = (grey[:, 1:] - grey[:, :-1]).abs()[4:16, 12:]
    down = (grey[1:] - grey[:-1]).abs()[4:16, 12:]
    # The last column has no pixel to its right, which counts as no edge.
    edges = [across.sum() / 144, down.mean()]
    by_hand = [*part.mean((1, 2)), *part.std((1, 2), correction=0), *edges]
    assert torch.allclose(found[1, :, 2, 4], torch.stack(by_hand), atol=1e-5)


def test_a_patch_by_itself_equals_loops() -> None:
    images = _random(2, 3, 24, 24)
    part = images[1, :, 8:12, 16:20]
    found = appearance(images, (6, 6), 1)[1, :, 2, 4]
    assert torch.allclose(
        found[:6], torch.cat([part.mean((1, 2)), part.std((1, 2), correction=0)]), atol=1e-5
    )


def test_a_flat_image_has_its_colour_and_nothing_else() -> None:
    flat = torch.tensor([0.2, 0.5, 0.9]).reshape(1, 3, 1, 1).expand(1, 3, 30, 30)
    found = appearance(flat, (4, 4))
    assert torch.allclose(found[0, :3], flat[0, :, :4, :4])
    assert found[0, 3:].abs().max() < 1e-3


def test_every_vector_gets_the_look_of_its_own_patch() -> None:
    images = _random(5, 3, 16, 16)
    origins = np.array([[4, 0, 1], [0, 3, 3], [2, 2, 0], [4, 1, 1]], np.int32)
    looks = vector_appearance(torch.split(images, 2), origins, (4, 4))
    whole = appearance(images, (4, 4))
    for look, (image, row, column) in zip(looks, origins, strict=True):
        assert torch.allclose(look, whole[image, :, row, column])


def test_a_colour_that_the_network_does_not_see_is_what_the_memory_leaves_unexplained(
    random_backbone: Any, tmp_path: Any
) -> None:
    """Features are the same; only what the patch looks like tells the images apart."""
    origins = np.array([[0, 0, 0]], np.int32)
    whitening = Whitening(torch.zeros(1), torch.ones(1, 1))
    bank = MemoryBank(whitening, torch.zeros(1, 1), origins)
    bank.appearance = torch.full((1, 8), 0.25)
    save_bank(bank, tmp_path / "bank")
    model = FamiliarityModel(random_backbone, load_bank(tmp_path / "bank"), "sensory", 1, 0.1)
    features, images = {"layer": torch.zeros(2, 1, 4, 4)}, torch.full((2, 3, 16, 16), 0.25)
    images[1, 2] = 0.75
    found = model.score(features)
    left = residual_deviations(
        model.residuals(found, model.differences(images, found)), found.distances
    ).reshape(2, FIGURES, 9)
    assert torch.allclose(left[0, 8], torch.tensor([0.0, 0, 0, 0, -0.25, -0.25, -0.25, -0.25, -0.25]))
    assert torch.allclose(left[1, 8] - left[0, 8], torch.tensor([0.0, 0, 0, 0.5, 0, 0, 0, 0, 0]), atol=1e-5)
    blind = replace(model, bank=MemoryBank(whitening, torch.zeros(1, 1), origins))
    assert blind.differences(images, found) is None
    alike = residual_deviations(blind.residuals(found, None), found.distances)
    assert torch.equal(alike[0], alike[1])


def test_without_neighbours_novelty_is_a_standardised_mahalanobis_distance() -> None:
    normal = torch.randn(40, 8, 1, 1, generator=torch.Generator().manual_seed(3))
    normal[:, 1] += 0.9 * normal[:, 0]
    novel = 3 * torch.randn(5, 8, 1, 1, generator=torch.Generator().manual_seed(4))
    found = fit_appearance_novelty(normal)(novel)[:, 0, 0].numpy()
    known, asked = (each[:, :, 0, 0].double().numpy() for each in (normal, novel))
    standing = (known - known.mean(0)) / known.std(0), (asked - known.mean(0)) / known.std(0)
    covariance = np.cov(standing[0].T, bias=True)
    precision = np.linalg.inv(covariance + 1e-3 * np.diag(covariance.diagonal()))
    usual, distance = (np.sqrt(np.einsum("ns,st,nt->n", each, precision, each)) for each in standing)
    assert np.allclose(found, (distance - usual.mean()) / usual.std(), rtol=1e-3)


def _differences(images: int) -> torch.Tensor:
    """Of normal images whose upper half varies ten times as much."""
    maps = torch.randn(images, 8, 16, 16, generator=torch.Generator().manual_seed(images))
    maps[:, :, :8] *= 10
    return maps


def test_the_same_difference_is_more_novel_where_little_differs_usually() -> None:
    novelty, seen = fit_appearance_novelty(_differences(40)), {}
    for row in (3, 12):
        maps = _differences(41)[:1]
        maps[:, :, row - 1 : row + 2, 7:10] = 10.0
        seen[row] = novelty(maps)[0]
    assert divmod(int(seen[12].argmax()), 16) == (12, 8)
    assert float(seen[12][12, 8]) > 8 * float(seen[3][3, 8])


def test_one_image_does_not_tell_what_is_usual() -> None:
    with pytest.raises(CalibrationError, match="at least 2"):
        fit_appearance_novelty(_differences(1))
