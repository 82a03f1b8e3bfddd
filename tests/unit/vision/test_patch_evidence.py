"""Learned maps: the discriminant against another library's ridge, and what labels may do to a map."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from torch import Tensor

from novad.errors import CalibrationError
from novad.vision.patch_evidence import (
    BLURS,
    DIRECTIONS,
    UNTAUGHT,
    Discriminant,
    PatchEvidence,
    blurred,
    fit_discriminant,
    patch_deviations,
    patch_signs,
)

CHANNELS = 5


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _products(signs: np.ndarray) -> Tensor:
    appended = np.c_[signs, np.ones(len(signs))]
    return torch.from_numpy(appended.T @ appended)


def _evidence(seed: int = 1) -> PatchEvidence:
    weight = _numbers(len(BLURS) * 2 * CHANNELS, seed=seed)
    return PatchEvidence(
        _numbers(CHANNELS, seed=2), _numbers(CHANNELS, seed=3).abs() + 0.5, Discriminant(weight, 0.3, 1.7)
    )


@pytest.mark.parametrize("ridge", [0.01, 1.0, 30.0])
def test_a_discriminant_is_a_ridge_regression_with_balanced_classes(ridge: float) -> None:
    random = np.random.default_rng(0)
    bad, good = random.normal(0.6, 1.0, (30, 4)), random.normal(0.0, 1.0, (400, 4)) * [1, 2, 1, 3]
    found = fit_discriminant(_products(bad), _products(good), ridge)
    shares = np.r_[np.full(30, 1 / 30), np.full(400, 1 / 400)]
    model = Ridge(alpha=ridge).fit(np.r_[bad, good], np.r_[np.ones(30), -np.ones(400)], sample_weight=shares)
    assert np.allclose(found.weight, model.coef_, rtol=1e-4, atol=1e-6)
    read = good @ model.coef_
    assert found.offset == pytest.approx(read.mean(), rel=1e-5, abs=1e-8)
    assert found.spread == pytest.approx(read.std(), rel=1e-5)


@pytest.mark.parametrize("empty", [0, 1])
def test_without_one_of_the_classes_nothing_is_learned(empty: int) -> None:
    sums = [_products(np.random.default_rng(0).normal(size=(9, 3)))] * 2
    sums[empty] = torch.zeros(4, 4, dtype=torch.float64)
    with pytest.raises(CalibrationError, match="at least one defective and one sound position"):
        fit_discriminant(*sums, 1.0)


def test_a_map_reads_bent_deviations_and_their_squares_at_every_blur() -> None:
    evidence, deviations = _evidence(), 5 * _numbers(2, CHANNELS, 9, 7, seed=4)
    standing = (deviations - evidence.centre[:, None, None]) / evidence.scale[:, None, None]
    bent = 4 * torch.tanh(standing / 4)
    signs = torch.cat([bent, bent**2], dim=1)
    assert torch.allclose(patch_signs(deviations, evidence.centre, evidence.scale), signs, atol=1e-5)
    reading = torch.einsum("nkhw,k->nhw", blurred(signs), evidence.discriminant.weight)
    taught = ((reading - 0.3) / 1.7).clamp_min(0)
    expected = UNTAUGHT * standing[:, 1] + (1 - UNTAUGHT) * taught
    assert torch.allclose(evidence(deviations), expected, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 50))
def test_labels_never_take_brightness_away(seed: int, size: float) -> None:
    evidence, deviations = _evidence(seed), size * _numbers(1, CHANNELS, 6, 6, seed=seed)
    looks = (deviations[:, 1] - evidence.centre[1]) / evidence.scale[1]
    assert (evidence(deviations) >= UNTAUGHT * looks - 1e-3).all()


@pytest.mark.parametrize("differences", [11, 8])
@pytest.mark.parametrize("directions", [3, DIRECTIONS + 6])
def test_deviations_are_familiarity_looks_differences_and_the_leading_residuals(
    directions: int, differences: int
) -> None:
    distances, looks = _numbers(2, 4, 3), _numbers(2, 4, 3, seed=1)
    differing = _numbers(2, differences, 4, 3, seed=3)
    residuals = _numbers(2, 4, 3, directions, seed=2)
    found: Any = patch_deviations(distances, looks, differing, residuals)
    kept = min(directions, DIRECTIONS)
    named = 2 + differences
    assert found.shape == (2, named + kept, 4, 3)
    assert torch.equal(found[:, 0], distances)
    assert torch.equal(found[:, 1], looks)
    assert torch.equal(found[:, 2:named], differing)
    assert torch.equal(found[:, named:], residuals[..., :kept].permute(0, 3, 1, 2))
