"""Appearance: pooled pixels against loops, and bank vectors that remember what their patches looked like."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from novad.errors import CalibrationError
from novad.vision.appearance import (
    appearance,
    fit_appearance_novelty,
    vector_appearance,
)
from novad.vision.detector_files import Calibration, load_novelty, save_novelty
from novad.vision.memory_bank import MemoryBank, load_bank, save_bank
from novad.vision.models import FamiliarityModel
from novad.vision.patch_store import Whitening
from novad.vision.residuals import FIGURES, residual_deviations


def _random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_figures_of_a_patch_and_its_neighbours_equal_loops() -> None:
    images = _random(2, 3, 24, 24)
    found = appearance(images, (6, 6))
    assert found.shape == (2, 11, 6, 6)
    part = images[1, :, 4:16, 12:24]  # patch (2, 4) of 4 x 4 pixels with its eight neighbours
    grey = images[1].mean(0)
    across = (grey[:, 1:] - grey[:, :-1]).abs()[4:16, 12:]
    down = (grey[1:] - grey[:-1]).abs()[4:16, 12:]
    # The last column has no pixel to its right, which counts as no edge.
    edges = [across.sum() / 144, down.mean()]
    patches = images[1].reshape(3, 6, 4, 6, 4).mean((2, 4)).numpy()
    # Six patches in a row: the blur sees five to either side, mirrored at the borders.
    around = [gaussian_filter(colour, 3, mode="mirror", truncate=5 / 3)[2, 4] for colour in patches]
    relative = part.mean((1, 2)) - torch.tensor(around)
    by_hand = [*part.mean((1, 2)), *part.std((1, 2), correction=0), *edges, *relative]
    assert torch.allclose(found[1, :, 2, 4], torch.stack(by_hand), atol=1e-5)


def test_a_lamp_that_lights_evenly_leaves_what_a_patch_is_beside_its_surroundings() -> None:
    """A faint stain and a lamp change colours alike; beside its surroundings only the stain differs."""
    cloth = 0.2 + 0.2 * _random(1, 3, 48, 48)
    stained, plain = cloth.clone(), appearance(cloth, (12, 12))
    stained[..., 16:28, 16:28] += 0.05
    lamp, stain = (appearance(each, (12, 12)) - plain for each in (cloth + 0.05, stained))
    assert torch.allclose(lamp[0, :3], torch.full((3, 12, 12), 0.05), atol=1e-5)
    assert lamp[0, 8:].abs().max() < 1e-5
    assert torch.allclose(stain[0, :3, 5, 5], torch.full((3,), 0.05), atol=1e-5)
    assert (stain[0, 8:, 5, 5] > 0.03).all()


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


@pytest.mark.parametrize(("known", "read"), [(11, 9), (8, 8)])
def test_a_colour_that_the_network_does_not_see_is_what_the_memory_leaves_unexplained(
    known: int, read: int, random_backbone: Any, tmp_path: Any
) -> None:
    """Features are the same; only what patches look like tells the images apart. Banks of before know 8."""
    origins = np.array([[0, 0, 0]], np.int32)
    whitening = Whitening(torch.zeros(1), torch.ones(1, 1))
    bank = MemoryBank(whitening, torch.zeros(1, 1), origins)
    bank.appearance = torch.full((1, known), 0.25)
    save_bank(bank, tmp_path / "bank")
    model = FamiliarityModel(random_backbone, load_bank(tmp_path / "bank"), "sensory", 1, 0.1)
    features, images = {"layer": torch.zeros(2, 1, 4, 4)}, torch.full((2, 3, 16, 16), 0.25)
    images[1, 2] = 0.75
    found = model.score(features)
    left = residual_deviations(
        model.residuals(found, model.differences(images, found)), found.distances
    ).reshape(2, FIGURES, 1 + read)
    nothing = torch.tensor([0.0, 0, 0, 0, *[-0.25] * (read - 3)])
    assert torch.allclose(left[0, 8], nothing, atol=1e-5)
    blue = torch.tensor([0.0, 0, 0, 0.5, *[0] * (read - 3)])
    assert torch.allclose(left[1, 8] - left[0, 8], blue, atol=1e-5)
    blind = replace(model, bank=MemoryBank(whitening, torch.zeros(1, 1), origins))
    assert blind.differences(images, found) is None
    alike = residual_deviations(blind.residuals(found, None), found.distances)
    assert torch.equal(alike[0], alike[1])


def _standing_distance(known: Any, asked: Any) -> Any:
    """Mahalanobis distances of ``asked``, in standard deviations of those of ``known``."""
    standing = (known - known.mean(0)) / known.std(0), (asked - known.mean(0)) / known.std(0)
    covariance = np.cov(standing[0].T, bias=True)
    precision = np.linalg.inv(covariance + 1e-3 * np.diag(covariance.diagonal()))
    usual, distance = (np.sqrt(np.einsum("ns,st,nt->n", each, precision, each)) for each in standing)
    return (distance - usual.mean()) / usual.std()


@pytest.mark.parametrize("figures", [11, 8])
def test_without_neighbours_novelty_is_the_mean_of_standardised_mahalanobis_distances(
    figures: int, tmp_path: Path
) -> None:
    """Of patches alone and of patches against their surroundings; detectors of before know the first."""
    normal = torch.randn(40, figures, 1, 1, generator=torch.Generator().manual_seed(3))
    normal[:, 1] += 0.9 * normal[:, 0]
    normal[:, -1] += 0.9 * normal[:, -2]
    novel = 3 * torch.randn(5, figures, 1, 1, generator=torch.Generator().manual_seed(4))
    usual = fit_appearance_novelty(normal)
    assert (usual.around is None) == (figures == 8)
    known, asked = (each[:, :, 0, 0].double().numpy() for each in (normal, novel))
    parts = [slice(0, 8), *([slice(8, 11)] if figures > 8 else [])]
    expected = np.mean([_standing_distance(known[:, part], asked[:, part]) for part in parts], axis=0)
    save_novelty(Calibration({}, appearance=usual), tmp_path / "novelty")
    loaded = load_novelty(tmp_path / "novelty").appearance
    assert loaded is not None
    for each in (usual, loaded):
        assert np.allclose(each(novel)[:, 0, 0].numpy(), expected, rtol=1e-3)


def _differences(images: int) -> torch.Tensor:
    """Of normal images whose upper half varies ten times as much."""
    maps = torch.randn(images, 11, 16, 16, generator=torch.Generator().manual_seed(images))
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


def test_evidence_reads_the_mean_of_the_three_that_compare_with_the_surroundings(
    random_backbone: Any,
) -> None:
    origins = np.array([[0, 0, 0]], np.int32)
    bank = MemoryBank(Whitening(torch.zeros(1), torch.ones(1, 1)), torch.zeros(1, 1), origins)
    model = FamiliarityModel(random_backbone, bank, "sensory", 1, 0.1)
    found, differences = model.score({"layer": _random(2, 1, 4, 4)}), _random(2, 11, 4, 4)
    left = model.residuals(found, differences)
    assert torch.equal(left[..., 1:9], differences[:, :8].permute(0, 2, 3, 1))
    assert torch.allclose(left[..., 9], differences[:, 8:].mean(1))
    assert left.shape[-1] == 10
