"""What a verdict on drift may and may not hang on."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from novad.monitoring.drift import Stream, watch
from novad.monitoring.evidence import online_ranks

FIGURES = st.lists(st.floats(-100, 100, allow_subnormal=False).map(lambda x: round(x, 3)), max_size=40)


def _chance(count: int) -> np.ndarray:
    return np.random.default_rng(0).random(count)


@given(FIGURES, FIGURES, st.floats(0.1, 50), st.floats(-1000, 1000))
@settings(max_examples=60, deadline=None)
def test_units_do_not_matter(before: list[float], after: list[float], unit: float, zero: float) -> None:
    reference, values = np.array(before), np.array(after)

    def drift(scale: float, offset: float) -> tuple[object, ...]:
        stream = Stream("x", reference * scale + offset, values * scale + offset)
        found = watch([stream], np.zeros(len(values)), _chance(len(values)), 100, 0.05)
        return found.evidence, found.since, found.streams[0].direction

    assert drift(1, 0) == drift(unit, zero)


@given(FIGURES, FIGURES, st.randoms())
@settings(max_examples=60, deadline=None)
def test_ranks_lie_between_0_and_1_and_the_order_of_the_reference_does_not_matter(
    before: list[float], after: list[float], random: object
) -> None:
    shuffled = list(before)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    values, chance = np.array(after), _chance(len(after))
    ranks = online_ranks(np.array(before), values, chance)
    np.testing.assert_array_equal(ranks, online_ranks(np.array(shuffled), values, chance))
    assert ((ranks >= 0) & (ranks <= 1)).all()


@given(FIGURES, st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_what_was_seen_does_not_change_by_what_comes_after(after: list[float], cut: int) -> None:
    values, chance = np.array(after), _chance(len(after))
    whole = online_ranks(np.empty(0), values, chance)
    np.testing.assert_array_equal(whole[:cut], online_ranks(np.empty(0), values[:cut], chance[:cut]))


@given(st.lists(st.booleans(), max_size=20))
@settings(max_examples=60, deadline=None)
def test_no_twenty_parts_of_any_kind_raise_an_alarm(odd: list[bool]) -> None:
    parts = np.array(odd)
    values = np.where(parts, 1e9, 0.0)
    refused = parts.astype(float)
    stream = Stream("x", np.linspace(-1, 1, 30), values)
    assert not watch([stream], refused, _chance(len(parts)), 10_000, 0.01).alarm
