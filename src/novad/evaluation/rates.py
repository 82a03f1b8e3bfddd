"""How often something happens, with the interval that so few images leave open."""

from dataclasses import dataclass

from novad.vision.calibration import conformal_rank

__all__ = ["Rate", "surplus_p_value"]


@dataclass(frozen=True)
class Rate:
    """``count`` of ``of`` images, as an estimate for others of their kind."""

    count: int
    of: int
    """At least 1."""

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.count / self.of

    @property
    def ci95(self) -> tuple[float, float]:
        """Exact 95 % interval of the share (Clopper and Pearson 1934): not empty at 0 or 1 either."""
        from scipy.stats import binomtest  # takes half a second to load

        interval = binomtest(self.count, self.of).proportion_ci(0.95, "exact")
        return float(interval.low), float(interval.high)


def surplus_p_value(failed: int, asked: int, calibrated: int, alpha: float) -> float:
    """Chance that so many good images, or more, exceed a conformal threshold that images like them set.

    How many of m images exceed the k-th smallest of n others is beta-binomial, with n + 1 - k and k, while
    all are exchangeable (Vovk 2012): small where they are not, and the promise of the threshold with them.

    Args:
        failed: images above the threshold.
        asked: m images.
        calibrated: n images that set it, enough to promise ``alpha``.
        alpha: promised false-alarm rate.
    """
    from scipy.stats import betabinom  # takes half a second to load

    rank = conformal_rank(calibrated, alpha)
    return float(betabinom.sf(failed - 1, asked, calibrated + 1 - rank, rank))
