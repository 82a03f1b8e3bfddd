"""Drift of a line: streams of figures about its parts, watched together under one false-alarm rate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from novad.monitoring.change_point import change_likelihoods, change_point
from novad.monitoring.evidence import DIRECTIONS, bet_factors, online_ranks, pulls, wealth

__all__ = ["LATELY", "REFUSED", "Drift", "Stream", "StreamDrift", "watch"]

Floats = NDArray[np.float64]

REFUSED = "refused"
_REFUSALS = ("more often", "less often", "most parts")
LATELY = 100


@dataclass(frozen=True)
class Stream:
    """A figure of parts that passed, and of the normals that it is held against.

    Attributes:
        name: of the figure.
        reference: (m,) values of the normals that set thresholds.
        values: (n,) values of the parts in their order; NaN where a part has none.
    """

    name: str
    reference: Floats
    values: Floats


@dataclass(frozen=True)
class StreamDrift:
    """What one stream shows.

    Attributes:
        name: of the figure; ``refused`` for the decisions.
        parts: that have the figure.
        evidence: most that a stake of 1 against 'nothing has changed' ever became.
        drifted: whether that is enough for this stream alone.
        direction: what the figure became, where it drifted.
        since: index of the first part that differs, where it drifted.
        usual: median of the reference; None for decisions, which have none.
        lately: median of the last 100 parts; of decisions, the share refused.
    """

    name: str
    parts: int
    evidence: float
    drifted: bool
    direction: str | None
    since: int | None
    usual: float | None
    lately: float | None


@dataclass(frozen=True)
class Drift:
    """Verdict on all streams together.

    Attributes:
        alarm: the mean wealth of all streams reached 1 / alpha at some part.
        evidence: most that it ever was.
        since: index of the part from which on all streams that drifted differ, most likely; None without
            an alarm.
        streams: each stream.
    """

    alarm: bool
    evidence: float
    since: int | None
    streams: tuple[StreamDrift, ...]


def watch(streams: Sequence[Stream], refused: Floats, chance: Floats, window: int, alpha: float) -> Drift:
    """Watch figures and decisions of n parts together.

    While the parts that pass are exchangeable with the reference, and refusals among each other and no more
    than half, an alarm comes with probability at most ``alpha``, at whichever part one looks: the mean of
    martingales is a martingale, however they depend on each other.

    Args:
        streams: figures of the parts.
        refused: (n,) 1 where a part was not passed, else 0.
        chance: (n,) independent uniform numbers.
        window: parts for which the stake is meant, at least n.
        alpha: probability of a false alarm in a window.
    """
    watched = [_figure(each, chance, window, alpha) for each in streams]
    watched.append(_decisions(refused, chance, window, alpha))
    mean = np.mean([series for series, _, _ in watched], axis=0)
    found = tuple(each for _, _, each in watched)
    evidence = float(mean.max(initial=1.0))
    alarm = evidence >= 1 / alpha
    # One cause moves many figures: as if they were independent, their likelihoods of its start multiply.
    since = change_point(np.sum([begun for _, begun, _ in watched], axis=0)) if alarm else None
    return Drift(alarm, evidence, since, found)


def _figure(stream: Stream, chance: Floats, window: int, alpha: float) -> tuple[Floats, Floats, StreamDrift]:
    """Wealth after each part, log-likelihoods of a change from each part on, and what the stream shows."""
    # Loading it takes longer than all the rest of `novad.tracking`: only those pay who watch.
    from scipy.stats import rankdata

    at = np.flatnonzero(np.isfinite(stream.values))
    values, reference = stream.values[at], stream.reference
    pull = np.zeros((len(stream.values), len(DIRECTIONS)))
    pull[at] = pulls(online_ranks(reference, values, chance[at]))
    series, peak, best = _betted(pull, window)
    drifted = _reached(series, alpha)
    begun = np.zeros((2, len(stream.values)))
    if drifted:
        until = at[at <= peak]
        known = np.concatenate([reference, values[: len(until)]])
        ranks = (rankdata(known) - 0.5) / len(known)
        # A part without the figure is as likely the first that changed as the next one with it.
        following = np.searchsorted(until, np.arange(until[-1] + 1))
        begun[:, : until[-1] + 1] = change_likelihoods(pulls(ranks)[:, best], len(reference))[:, following]
    return (
        series,
        begun,
        StreamDrift(
            name=stream.name,
            parts=len(at),
            evidence=float(series.max(initial=1.0)),
            drifted=drifted,
            direction=DIRECTIONS[best] if drifted else None,
            since=change_point(begun) if drifted else None,
            usual=_median(reference),
            lately=_median(values[-LATELY:]),
        ),
    )


def _decisions(
    refused: Floats, chance: Floats, window: int, alpha: float
) -> tuple[Floats, Floats, StreamDrift]:
    """The same of refusals: nobody knows their usual rate, so earlier decisions are all they have."""
    most = 2 * refused - 1
    ranks = online_ranks(np.empty(0), refused, chance)
    # Refused parts are most of all parts: not even that is taken for defects.
    series, peak, best = _betted(np.stack([2 * ranks - 1, 1 - 2 * ranks, most], axis=1), window)
    drifted = _reached(series, alpha)
    begun = np.zeros((2, len(refused)))
    if drifted:
        begun[:, : peak + 1] = change_likelihoods(most[: peak + 1], 0)
    return (
        series,
        begun,
        StreamDrift(
            name=REFUSED,
            parts=len(refused),
            evidence=float(series.max(initial=1.0)),
            drifted=drifted,
            direction=_REFUSALS[best] if drifted else None,
            since=change_point(begun) if drifted else None,
            usual=None,
            lately=float(refused[-LATELY:].mean()) if len(refused) else None,
        ),
    )


def _betted(pull: Floats, window: int) -> tuple[Floats, int, int]:
    """Wealth after each part, where it was highest, and which of the pulls won most until then."""
    if not len(pull):
        return np.empty(0), 0, 0
    factors = bet_factors(pull)
    series, held = wealth(factors, window)
    peak = int(np.argmax(series))
    return series, peak, int(np.argmax(held[peak])) * pull.shape[1] // factors.shape[1]


def _reached(series: Floats, alpha: float) -> bool:
    return bool(series.max(initial=1.0) >= 1 / alpha)


def _median(values: Floats) -> float | None:
    return float(np.median(values)) if len(values) else None
