"""Laws that figures and overlays keep on any scores and maps."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from novad.evaluation.explanation import energy_in_mask
from novad.evaluation.metrics import fnr_at_fpr, image_auroc, threshold_at_fpr
from novad.evaluation.overlays import overlay
from novad.evaluation.pixels import PixelFigures, _level

VALUES = st.integers(-50, 50).map(float)
RATES = st.floats(0, 1)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
SHAPE = (6, 7)
HEATS = arrays.arrays(np.float32, SHAPE, elements=FINITE)
MASKS = arrays.arrays(np.bool_, SHAPE)


@given(st.lists(VALUES, min_size=1), RATES)
def test_the_threshold_at_a_rate_keeps_the_rate(normals: list[float], rate: float) -> None:
    scores = np.array(normals)
    threshold = threshold_at_fpr(scores, rate)
    assert threshold in scores
    assert (scores > threshold).sum() <= rate * len(scores) + 1e-6


@given(st.lists(VALUES, min_size=1), st.lists(VALUES, min_size=1), RATES, RATES)
def test_more_alarms_allowed_never_means_more_misses(
    normals: list[float], anomalies: list[float], one: float, other: float
) -> None:
    scores, labels = np.array(normals + anomalies), np.repeat([0, 1], [len(normals), len(anomalies)])
    few, many = (fnr_at_fpr(scores, labels, rate) for rate in sorted((one, other)))
    assert few is not None
    assert many is not None
    assert few >= many


@given(st.lists(VALUES, min_size=1), st.lists(VALUES, min_size=1))
def test_image_figures_see_only_the_order_of_scores(normals: list[float], anomalies: list[float]) -> None:
    scores, labels = np.array(normals + anomalies), np.repeat([0, 1], [len(normals), len(anomalies)])
    stretched = scores**3 + 7
    assert image_auroc(stretched, labels) == image_auroc(scores, labels)
    assert fnr_at_fpr(stretched, labels, 0.05) == fnr_at_fpr(scores, labels, 0.05)


@given(arrays.arrays(np.float32, 30, elements=FINITE))
def test_levels_keep_the_order_of_any_floats(values: np.ndarray) -> None:
    order = np.argsort(values)
    assert (np.diff(_level(values)[order]) >= 0).all()


@given(st.floats(2.0**-126, 2.0**126, width=32))
def test_values_a_thousandth_apart_have_levels_of_their_own(value: float) -> None:
    pair = np.array([value, value * 1.001], np.float32)
    lower, higher = _level(pair)
    assert lower < higher
    assert _level(-pair)[0] > _level(-pair)[1]


@settings(max_examples=30, deadline=None)  # each takes a few arrays of a million levels
@given(HEATS, MASKS)
def test_a_map_turned_upside_down_turns_the_pixel_auroc(heat: np.ndarray, mask: np.ndarray) -> None:
    up, down = PixelFigures(), PixelFigures()
    up.add(heat, mask)
    down.add(-heat, mask)
    found = up.finish()["pixel_auroc"], down.finish()["pixel_auroc"]
    if found[0] is None or found[1] is None:
        assert mask.all() or not mask.any()
    else:
        assert abs(found[0] + found[1] - 1) < 1e-5


@settings(max_examples=30, deadline=None)
@given(HEATS, MASKS)
def test_pixel_figures_lie_between_0_and_1(heat: np.ndarray, mask: np.ndarray) -> None:
    figures = PixelFigures()
    figures.add(heat, mask)
    figures.add(heat, None)
    assert all(value is None or 0 <= value <= 1 for value in figures.finish().values())


@given(HEATS, MASKS)
def test_energy_on_and_off_the_defect_makes_the_whole(heat: np.ndarray, mask: np.ndarray) -> None:
    total = energy_in_mask(heat, mask) + energy_in_mask(heat, ~mask)
    assert abs(total - (1 if (heat > 0).any() else 0)) < 1e-6


@given(HEATS, st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_nothing_glows_at_or_below_any_threshold(heat: np.ndarray, threshold: float, span: float) -> None:
    image = np.full((*SHAPE, 3), 100, np.uint8)
    shown = overlay(image, heat, threshold, span)
    assert (shown[heat <= threshold] == 100).all()
