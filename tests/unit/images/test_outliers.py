"""Outliers are measured against the normal images, in robust deviations."""

import numpy as np
import pandas as pd
import pytest

from novad.images.outliers import lonely, robust_deviation


def test_deviation_is_in_standard_deviations_of_a_normal_sample_and_ignores_the_outlier() -> None:
    values = np.random.default_rng(0).normal(10, 2, 2001)
    values[0] = 30
    deviation = robust_deviation(values, np.ones(2001, bool))
    assert deviation[0] == pytest.approx(10, rel=0.1)
    assert np.std(deviation[1:]) == pytest.approx(1, rel=0.1)


def test_defects_do_not_shift_the_scale_and_constants_make_no_outliers() -> None:
    values = np.array([5.0] * 10 + [5.01] + [9.0] * 30)
    normal = np.arange(41) < 11
    deviation = robust_deviation(values, normal)
    assert abs(deviation[:11]).max() < 1
    assert deviation[11:].min() > 20


def test_too_few_normals_say_nothing() -> None:
    assert np.isnan(robust_deviation(np.arange(5.0), np.ones(5, bool))).all()


def test_a_normal_image_unlike_all_others_is_lonely() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(60, 200, 1024)
    pictures = [np.clip(base + rng.normal(0, 4, 1024), 0, 255).astype(np.uint8) for _ in range(12)]
    pictures[4] = rng.integers(0, 256, 1024).astype(np.uint8)
    manifest = pd.DataFrame(
        {"thumbnail": [p.tobytes() for p in pictures], "sha256": [f"{i:064d}" for i in range(12)]}
    )
    normal = np.ones(12, bool)
    normal[11] = False
    loneliness = lonely(manifest, normal)
    assert loneliness[4] > 20
    assert np.isnan(loneliness[11])
    assert np.delete(loneliness, [4, 11]).max() < 6
