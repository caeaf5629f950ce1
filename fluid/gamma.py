"""The gamma law by its mean and standard deviation."""

from __future__ import annotations

from dataclasses import dataclass

# scipy is imported where it is needed: a serving engine reads tables without it.


@dataclass(frozen=True)
class Gamma:
    """A gamma law: that of `scipy.stats`, whose import takes longer than a prediction.

    >>> round(Gamma(2.0, 2.0).sf(2.0), 4)  # exponential
    0.3679
    """

    mean: float
    sd: float

    @property
    def shape(self) -> float:
        """Mean² ÷ variance."""
        return (self.mean / self.sd) ** 2

    @property
    def scale(self) -> float:
        """Variance ÷ mean."""
        return self.sd**2 / self.mean

    def cdf(self, value: float) -> float:
        """P(X ≤ value)."""
        from scipy.special import gammainc

        return float(gammainc(self.shape, max(value, 0.0) / self.scale))

    def sf(self, value: float) -> float:
        """P(X > value)."""
        from scipy.special import gammaincc

        return float(gammaincc(self.shape, max(value, 0.0) / self.scale))

    def isf(self, probability: float) -> float:
        """What is exceeded with this probability."""
        from scipy.special import gammainccinv

        return float(gammainccinv(self.shape, probability) * self.scale)
