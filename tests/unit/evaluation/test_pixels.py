"""Pixel figures against slow, exact counting."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from novad.errors import CalibrationError, ImageError
from novad.evaluation import pixels
from novad.evaluation.pixels import PixelFigures, area_under

Case = list[tuple[np.ndarray, np.ndarray | None]]


def made(seed: int, side: int = 48, decimals: int | None = None, shift: float = 1.5) -> Case:
    """Normal images and defects of several regions each; ``decimals`` makes ties."""
    rng = np.random.default_rng(seed)
    case: Case = []
    for number in range(8):
        heat = rng.gamma(2.0, size=(side, side))
        mask = None
        if number % 2:
            mask = np.zeros((side, side), bool)
            for row, column in rng.integers(0, side - 9, (3, 2)):
                mask[row : row + rng.integers(2, 9), column : column + rng.integers(2, 9)] = True
            heat[mask] += rng.normal(shift, size=mask.sum())
        case.append((np.round(heat, decimals) if decimals is not None else heat, mask))
    return [(heat.astype(np.float32), mask) for heat, mask in case]


def figures(case: Case) -> dict[str, float | None]:
    collector = PixelFigures()
    for heat, mask in case:
        collector.add(heat, mask)
    return collector.finish()


def flattened(case: Case) -> tuple[np.ndarray, np.ndarray]:
    values = np.concatenate([heat.ravel() for heat, _ in case])
    truth = [np.zeros(heat.size, bool) if mask is None else mask.ravel() for heat, mask in case]
    return values, np.concatenate(truth)


def regions(mask: np.ndarray) -> list[np.ndarray]:
    """Connected regions by flood filling, neighbours by edge or corner."""
    left, found = {(int(r), int(c)) for r, c in np.argwhere(mask)}, []
    while left:
        region, front = np.zeros_like(mask), [left.pop()]
        while front:
            row, column = front.pop()
            region[row, column] = True
            around = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= around
            front += around
        found.append(region)
    return found


def exact_aupro(case: Case, limit: float = 0.3) -> float:
    """One point per distinct value, joined by straight lines, cut at the limit by interpolation."""
    values, truth = flattened(case)
    areas = [heat[region] for heat, mask in case if mask is not None for region in regions(mask)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(values)[::-1]:
        rate = float((values[~truth] >= threshold).mean())
        overlap = float(np.mean([(area >= threshold).mean() for area in areas]))
        if rate > limit:
            left, low = points[-1]
            points.append((limit, low + (limit - left) / (rate - left) * (overlap - low)))
            break
        points.append((rate, overlap))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points)) / limit


@pytest.mark.parametrize("decimals", [None, 1])
def test_pixel_auroc_equals_that_of_all_pixels_at_once(decimals: int | None) -> None:
    case = made(0, decimals=decimals)
    values, truth = flattened(case)
    assert figures(case)["pixel_auroc"] == pytest.approx(roc_auc_score(truth, values), abs=2e-4)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_figures_do_not_depend_on_the_scale_of_maps(scale: float) -> None:
    case = made(1)
    scaled = [((heat * scale).astype(np.float32), mask) for heat, mask in case]
    for name in ("pixel_auroc", "aupro"):
        assert figures(scaled)[name] == pytest.approx(figures(case)[name], abs=3e-4), name


def test_maps_below_zero_keep_their_order() -> None:
    case = made(2)
    values, truth = flattened(case)
    shifted = [(heat - np.float32(3), mask) for heat, mask in case]
    assert figures(shifted)["pixel_auroc"] == pytest.approx(roc_auc_score(truth, values), abs=5e-4)


def test_zero_and_minus_zero_are_one_value() -> None:
    mask = np.eye(4, dtype=bool)
    heat = np.where(mask, np.float32(0), -np.float32(0))
    assert figures([(heat, mask)])["pixel_auroc"] == 0.5


@pytest.mark.parametrize("decimals", [None, 1])
def test_aupro_equals_exact_counting_of_every_region(decimals: int | None) -> None:
    case = made(3, side=24, decimals=decimals)
    assert figures(case)["aupro"] == pytest.approx(exact_aupro(case), abs=5e-4)


def test_small_and_large_regions_weigh_the_same() -> None:
    heat = np.zeros((20, 20), np.float32)
    mask = np.zeros((20, 20), bool)
    mask[1, 1] = mask[5:15, 5:15] = True
    heat[1, 1] = 1.0  # the small one is found before any other pixel, the large one with all of them
    assert figures([(heat, mask)])["aupro"] == pytest.approx(0.5 + 0.5 * 0.15, abs=1e-6)


def test_corner_neighbours_are_one_region() -> None:
    heat, mask = np.zeros((8, 8), np.float32), np.zeros((8, 8), bool)
    mask[2, 2] = mask[3, 3] = mask[4, 4] = True
    heat[2, 2] = 1.0
    mask[6, 0] = True  # one region of three is found by a third; were they three, one of four would be found
    assert figures([(heat, mask)])["aupro"] == pytest.approx(1 / 6 + (5 / 6) * 0.15, abs=1e-6)


def exact_aupimo(case: Case) -> float:
    """Trapezoids over the log of the mean rate of normal images, one defect image after the other."""
    low, high = np.log(pixels.PIMO_BOUNDS)
    normals = [heat for heat, mask in case if mask is None]
    values = np.unique(np.concatenate([heat.ravel() for heat, _ in case]))[::-1]
    rates = np.mean([[(heat >= value).mean() for value in values] for heat in normals], axis=0)
    areas = []
    for heat, mask in case:
        if mask is None:
            continue
        recall = np.array([(heat[mask] >= value).mean() for value in values])
        free = recall[rates == 0].max(initial=0.0)
        x, y = np.log(rates[rates > 0]), recall[rates > 0]
        grid = np.linspace(low, high, 200_001)
        curve = np.where(grid < x[0], free, np.interp(grid, x, y))
        areas.append(np.trapezoid(curve, grid) / (high - low))
    return float(np.mean(areas))


def test_aupimo_equals_counting_image_by_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "PIMO_BOUNDS", (1e-3, 1e-2))  # within the reach of small images
    case = made(4, side=32, decimals=1, shift=6.0)
    found = figures(case)["aupimo"]
    assert found == pytest.approx(exact_aupimo(case), abs=1e-3)
    assert 0.05 < exact_aupimo(case) < 0.95, "a case that says something"


def test_every_normal_image_weighs_the_same_in_aupimo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "PIMO_BOUNDS", (1e-3, 1e-2))
    case = made(5, side=32, decimals=1, shift=6.0)
    large = np.concatenate([case[0][0]] * 4) + np.float32(1)
    mixed = [*case, (large, None)]
    assert abs(figures(mixed)["aupimo"] - figures(case)["aupimo"]) > 0.01
    assert figures(mixed)["aupimo"] == pytest.approx(exact_aupimo(mixed), abs=1e-3)


def test_aupimo_is_one_when_defects_lie_above_every_normal_pixel() -> None:
    mask = np.zeros((320, 320), bool)
    mask[:10, :10] = True
    rng = np.random.default_rng(0)
    normal = rng.random((320, 320)).astype(np.float32)
    assert figures([(normal, None), (normal + 2 * mask.astype(np.float32), mask)])["aupimo"] == 1.0


def test_aupimo_is_none_where_its_rates_cannot_be_read() -> None:
    found = figures(made(0))
    assert found["aupimo"] is None
    assert found["aupro"] is not None


def test_figures_are_none_without_masks_or_with_empty_ones() -> None:
    heat = np.ones((4, 4), np.float32)
    nothing = {"pixel_auroc": None, "aupro": None, "aupimo": None}
    assert figures([]) == nothing
    assert figures([(heat, None)]) == nothing
    assert figures([(heat, np.zeros((4, 4), bool))]) == nothing
    assert figures([(heat, np.ones((4, 4), bool))]) == nothing


def test_a_map_that_is_not_finite_is_refused_by_name() -> None:
    with pytest.raises(CalibrationError, match=r"test/bad/7\.png"):
        PixelFigures().add(np.array([[1.0, np.nan]]), None, "test/bad/7.png")


def test_a_mask_of_another_size_is_refused_by_name() -> None:
    with pytest.raises(ImageError, match=r"7\.png"):
        PixelFigures().add(np.zeros((4, 4)), np.ones((4, 5), bool), "7.png")


def test_memory_does_not_grow_with_images() -> None:
    collector = PixelFigures()

    def held() -> int:
        return sum(each.nbytes for each in vars(collector).values() if isinstance(each, np.ndarray))

    before = held()
    for heat, mask in made(0):
        collector.add(heat, mask)
    assert held() == before < 64 * 2**20
    assert all(isinstance(each, np.ndarray | int) for each in vars(collector).values())


def test_area_is_level_beyond_the_ends_of_the_curve() -> None:
    assert area_under(np.array([0.5]), np.array([0.4]), 0.0, 1.0) == pytest.approx(0.4)


def test_a_step_at_a_bound_counts_on_the_side_it_belongs_to() -> None:
    x, y = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.5, 0.5, 1.0])
    assert area_under(x, y, 0.0, 1.0) == pytest.approx(0.5)
