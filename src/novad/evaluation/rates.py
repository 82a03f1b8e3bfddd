"""How often something happens, with the interval that so few images leave open."""

from dataclasses import dataclass

__all__ = ["Rate"]


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
