"""A watched line: quiet while nothing changes, alarmed when something does, and told since when."""

import numpy as np
import pytest

from novad.monitoring.change_point import change_likelihoods, change_point
from novad.monitoring.drift import Drift, Stream, watch

NAMES = ("hybrid", "familiarity", "novelty", "brightness", "contrast", "sharpness")
COUNT, ALPHA = 400, 0.01


def _watch(
    seed: int, count: int = COUNT, alpha: float = ALPHA, defective: float = 0.1, **shift: np.ndarray
) -> Drift:
    rng = np.random.default_rng(seed)
    streams = [
        Stream(name, rng.normal(size=26), rng.normal(size=count) + shift.get(name, 0)) for name in NAMES
    ]
    refused = rng.random(count) < shift.get("refused", defective)
    for each in streams:
        each.values[refused] = np.nan
    return watch(streams, refused.astype(float), rng.random(count), count, alpha)


def _drifted(found: Drift) -> list[str]:
    return [each.name for each in found.streams if each.drifted]


def test_quiet_streams_alarm_no_more_often_than_promised() -> None:
    alarms = sum(_watch(seed, count=150, alpha=0.2).alarm for seed in range(200))
    # Of 200 fair ones more than 55 would alarm with probability 1 in 100.
    assert 1 <= alarms <= 55
    assert not any(_watch(seed, count=150).alarm for seed in range(0, 200, 10))


@pytest.mark.parametrize(("size", "direction"), [(2.0, "higher"), (-2.0, "lower")])
def test_a_step_is_found_at_its_place_with_its_direction(size: float, direction: str) -> None:
    step = size * (np.arange(COUNT) >= 250)
    found = _watch(1, contrast=step)
    assert (found.alarm, _drifted(found)) == (True, ["contrast"])
    contrast = found.streams[NAMES.index("contrast")]
    assert contrast.direction == direction
    assert contrast.since == found.since
    assert abs((found.since or 0) - 250) <= 8
    assert contrast.lately is not None
    assert abs(contrast.lately - size) < 0.5


@pytest.mark.parametrize("begins", [100, 200, 500, 700])
def test_a_slow_change_of_light_is_dated_within_a_tenth_of_the_stream(begins: int) -> None:
    fading = -np.maximum(0, np.arange(1000) - begins) / 100
    found = [_watch(seed, count=1000, brightness=fading) for seed in range(5)]
    assert all(each.alarm for each in found)
    assert max(abs((each.since or 0) - begins) for each in found) <= 100


def test_more_scatter_is_a_change_too() -> None:
    rng = np.random.default_rng(3)
    restless = 3 * rng.normal(size=COUNT) * (np.arange(COUNT) >= 150)
    found = _watch(3, sharpness=restless)
    assert _drifted(found) == ["sharpness"]
    assert found.streams[5].direction == "more scattered"


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_defects_at_a_steady_rate_are_no_drift(share: float) -> None:
    assert not any(_watch(seed, defective=share).alarm for seed in range(20))


def test_a_burst_of_refusals_needs_more_than_a_few_parts() -> None:
    for length, alarm in ((5, False), (60, True)):
        rate = np.where((np.arange(COUNT) >= 300) & (np.arange(COUNT) < 300 + length), 1.0, 0.05)
        found = _watch(2, refused=rate)
        assert (found.alarm, _drifted(found)) == (alarm, ["refused"] * alarm)
        assert found.streams[-1].direction in (("more often", "most parts") if alarm else (None,))
        assert not alarm or abs((found.since or 0) - 300) <= 10


def test_a_camera_that_is_off_from_the_first_part_on_is_seen() -> None:
    found = _watch(0, count=60, defective=1.0)
    assert (_drifted(found), found.since) == (["refused"], 0)
    assert (found.streams[-1].direction, found.streams[-1].lately) == ("most parts", 1.0)


def test_nothing_to_watch_is_quiet() -> None:
    found = _watch(0, count=0)
    assert (found.alarm, found.evidence, found.since) == (False, 1.0, None)
    assert {each.lately for each in found.streams} == {None}
    assert not watch([Stream("x", np.empty(0), np.empty(0))], np.empty(0), np.empty(0), 10, 0.1).alarm


def test_change_likelihoods_are_those_of_steps_and_ramps_fitted_by_least_squares() -> None:
    rng = np.random.default_rng(5)
    noise, place = rng.normal(size=30), np.arange(30)
    for values in (noise, noise + 2 * (place > 17), noise + 0.5 * np.maximum(0, place - 12)):
        found = change_likelihoods(values, 4)
        total = np.sum((values - values.mean()) ** 2)
        for start in range(4, 30):
            curves = [(np.arange(30) >= start) * 1.0, np.maximum(0, np.arange(30) - start + 1.0)]
            for curve, told in zip(curves, found[:, start - 4], strict=True):
                design = np.stack([np.ones(30), curve], 1)
                left = float(np.linalg.lstsq(design, values, rcond=None)[1][0])
                assert told == pytest.approx(-15 * np.log(left / total))
    assert change_point(change_likelihoods(noise + 9 * (place > 17), 4)) == 18 - 4
    assert change_point(change_likelihoods(np.ones(5), 0)) == 0


def test_figures_that_change_together_are_dated_better_than_the_strongest_of_them() -> None:
    errors, alone = [], []
    for seed in range(40):
        begins = 100 + 5 * seed
        fading = 2 * np.maximum(0, np.arange(COUNT) - begins) / (COUNT - begins)
        found = _watch(seed, **dict.fromkeys(NAMES, fading))
        strongest = max(found.streams, key=lambda each: each.evidence)
        if found.since is not None and strongest.since is not None:
            errors.append(found.since - begins)
            alone.append(strongest.since - begins)
    assert len(errors) > 30
    assert np.mean(np.square(errors)) < 0.3 * np.mean(np.square(alone))
