"""Overlays: what is below the threshold stays as it is, and the scale never moves."""

from typing import Any

import numpy as np
import pytest

from novad.evaluation.overlays import judged_overlay, overlay, panel, picture_name

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
RAMP = np.broadcast_to(np.linspace(-2, 4, 32), (24, 32))


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1.5])
def test_nothing_glows_at_or_below_the_threshold(threshold: float) -> None:
    heat = RAMP.copy()
    heat[0] = threshold
    shown = overlay(IMAGE, heat, threshold, 1.0)
    changed = (shown != IMAGE).any(axis=2)
    assert not changed[heat <= threshold].any()
    assert changed[heat > threshold].mean() > 0.95


def test_glow_grows_to_full_at_one_span_and_no_further() -> None:
    grey = np.full((1, 4, 3), 128, np.uint8)
    shown = overlay(grey, np.array([[1.1, 1.6, 2.0, 50.0]]), 1.0, 1.0).astype(int)
    distance = np.abs(shown - 128).sum(axis=2)[0]
    assert distance[0] < distance[2]
    np.testing.assert_array_equal(shown[0, 2], shown[0, 3])


def test_equal_values_look_equal_whatever_else_the_image_shows() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    faint, strong = np.full((4, 4), 1.4), np.full((4, 4), 1.4)
    strong[3, 3] = 1000.0
    np.testing.assert_array_equal(overlay(grey, faint, 1.0)[0, 0], overlay(grey, strong, 1.0)[0, 0])


def test_an_infinite_threshold_and_values_that_are_none_do_not_glow() -> None:
    np.testing.assert_array_equal(overlay(IMAGE, RAMP, float("inf")), IMAGE)
    heat = np.full((24, 32), np.nan)
    heat[5, 5] = np.inf
    changed = (overlay(IMAGE, heat, 1.0) != IMAGE).any(axis=2)
    assert changed[5, 5]
    assert changed.sum() == 1


def test_sixteen_bit_images_are_shown_by_their_high_byte() -> None:
    np.testing.assert_array_equal(overlay(IMAGE.astype(np.uint16) * 256, RAMP, 99.0), IMAGE)


@pytest.mark.parametrize(("shape", "span"), [((24, 32), 0.0), ((24, 32), -1.0), ((24, 31), 1.0)])
def test_a_wrong_span_or_size_is_refused(shape: tuple[int, int], span: float) -> None:
    with pytest.raises(ValueError, match="span"):
        overlay(IMAGE, np.zeros(shape), 1.0, span)


@pytest.mark.parametrize("passed", [True, False])
def test_a_failed_part_whose_map_stays_dark_is_ringed_where_the_map_is_highest(passed: bool) -> None:
    grey, heat = np.full((160, 240, 3), 128, np.uint8), np.zeros((160, 240), np.float32)
    heat[70, 180] = 0.5
    shown = judged_overlay("hybrid", grey, heat, 1.0, passed)
    changed = (shown != grey).any(axis=2)
    assert changed.any() != passed
    if not passed:
        rows, columns = np.nonzero(changed)
        assert (rows.min() + rows.max(), columns.min() + columns.max()) == pytest.approx((140, 360), abs=2)
        assert not changed[65:76, 175:186].any()  # the place itself stays to be seen
        assert {0, 255} <= set(shown[changed].ravel().tolist())


def test_where_a_map_glows_no_ring_is_drawn() -> None:
    np.testing.assert_array_equal(
        judged_overlay("hybrid", IMAGE, RAMP, 1.0, False), overlay(IMAGE, RAMP, 1.0)
    )


def test_the_hybrid_map_alone_points_on_a_failed_part() -> None:
    first, familiarity, novelty, hybrid = tiles(np.asarray(panel(IMAGE, maps(-3.0), LIMITS, passed=False)))
    np.testing.assert_array_equal(familiarity, first)
    np.testing.assert_array_equal(novelty, first)
    assert (hybrid != first).any()


def maps(value: float) -> dict[str, np.ndarray]:
    return {name: np.full((24, 32), value) for name in ("familiarity", "novelty", "hybrid")}


LIMITS = {"familiarity": 1.0, "novelty": 0.0, "hybrid": -2.0}


def tiles(sheet: np.ndarray) -> list[np.ndarray]:
    """The four pictures of a panel: (240, 320) each, 6 pixels apart, 24 from the top."""
    return [sheet[24:264, 6 + place * 326 : 326 + place * 326] for place in range(4)]


def test_a_good_part_shows_the_same_picture_four_times() -> None:
    first, *others = tiles(np.asarray(panel(IMAGE, maps(-2.0), LIMITS)))
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_each_map_is_judged_by_its_own_threshold() -> None:
    first, familiarity, novelty, hybrid = tiles(np.asarray(panel(IMAGE, maps(0.5), LIMITS)))
    np.testing.assert_array_equal(familiarity, first)
    assert (novelty != first).any()
    assert (hybrid != first).any()


def test_the_mask_is_outlined_outside_the_defect_on_the_first_picture_only() -> None:
    mask = np.zeros((24, 32), bool)
    mask[8:16, 8:16] = True
    plain = tiles(np.asarray(panel(IMAGE, maps(-9.0), LIMITS)))
    marked = tiles(np.asarray(panel(IMAGE, maps(-9.0), LIMITS, mask)))
    changed = (plain[0] != marked[0]).any(axis=2)
    assert changed[75:85, 100:140].any()
    assert not changed[95:145, 95:145].any()
    np.testing.assert_array_equal(plain[1], marked[1])


def test_the_end_of_a_long_caption_is_kept_within_the_sheet() -> None:
    end = "FAIL, hybrid 3.20"
    short = np.asarray(panel(IMAGE, maps(0.0), LIMITS, caption=end))
    long = np.asarray(panel(IMAGE, maps(0.0), LIMITS, caption="folder/" * 60 + end))
    assert short.shape == long.shape
    assert (long[-22:, -30:-6] < 128).any()  # reaches to the right edge
    assert (long[-22:, -5:] == 255).all()  # and not beyond


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("part 07 [é]", "part 07 [é]-01234567.png"),
        ("burnt/scorched-001", "burnt_scorched-001-01234567.png"),
        ("a\\b\0c", "a_b_c-01234567.png"),
        ("x" * 245, "x" * 100 + "-01234567.png"),
        ("x" + "é" * 120, "x" + "é" * 49 + "-01234567.png"),
        ("no text\udcff", "no text-01234567.png"),
    ],
)
def test_a_picture_is_called_what_it_shows_as_far_as_a_file_name_can(title: str, name: str) -> None:
    assert picture_name(title, "0123456789abcdef") == name


def test_a_very_wide_image_still_has_a_panel() -> None:
    strip = np.zeros((2, 4000, 3), np.uint8)
    sheet = panel(strip, {"hybrid": np.zeros((2, 4000))}, {"hybrid": float("inf")})
    assert sheet.height > 24


def test_a_large_image_is_coloured_once_it_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its defect, its glow and its ring lie where those of the image that is drawn as it is lie."""
    drawn: list[int] = []

    def watched(picture: np.ndarray, *others: Any) -> np.ndarray:
        drawn.append(max(picture.shape))
        return overlay(picture, *others)

    monkeypatch.setattr("novad.evaluation.overlays.overlay", watched)
    heat, mask = np.full((24, 32), -9.0, np.float32), np.zeros((24, 32), bool)
    heat[4:8, 20:26], mask[12:16, 4:9] = 2.0, True
    sheets = []
    for times in (40, 120):
        image, large, defect = (
            np.asarray(each).repeat(times, 0).repeat(times, 1) for each in (IMAGE, heat, mask)
        )
        given = dict.fromkeys(("familiarity", "novelty", "hybrid"), large)
        sheets.append(np.asarray(panel(image, given, LIMITS, defect, passed=False)).astype(int))
    assert max(drawn) == 1280
    assert np.abs(sheets[0] - sheets[1]).mean() < 1
    # A defect one pixel wide is not lost.
    thin = np.zeros((2880, 3840), bool)
    thin[1000:1800, 2000] = True
    dark = dict.fromkeys(given, np.full(thin.shape, -9.0, np.float32))
    plain, marked = (tiles(np.asarray(panel(image, dark, LIMITS, each))) for each in (None, thin))
    assert (plain[0] != marked[0]).any(axis=2)[90:145].any(axis=1).all()
