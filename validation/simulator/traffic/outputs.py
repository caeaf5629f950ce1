"""Random output lengths: each class draws them around its own, which is their mean.

The law is discrete, so that every length is a shape of the model and nothing is drawn but that. It
ends with the longest output that fits into memory, where servers stop too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError

OutputLaw = Literal["geometric", "lognormal"]
OUTPUT_LAWS: tuple[OutputLaw, ...] = ("geometric", "lognormal")

TAIL = 1e-9
"""Longer outputs than all but this share of them are left out."""

LOST_MEAN = 0.01
"""Share of the mean that outputs too long for memory may take away."""


@dataclass(frozen=True)
class Outputs:
    """Law of the output lengths of a class; its mean is that of the class.

    Attributes:
        law: "geometric" on 1, 2, …, or "lognormal", rounded to whole tokens.
        variation: Coefficient of variation of a log-normal law.

    Raises:
        InputError: Naming the first field that is out of range.

    >>> import fluidwait as fw
    >>> lengths, shares = fw.Outputs("lognormal", 0.5).lengths(mean=40, longest=2_000)
    >>> float(round(lengths @ shares, 6))
    40.0
    """

    law: OutputLaw = "geometric"
    variation: float = 1.0

    def __post_init__(self) -> None:
        if self.law not in OUTPUT_LAWS:
            raise InputError("outputs", self.law, " or ".join(OUTPUT_LAWS))
        if not 0.01 <= self.variation <= 10:
            raise InputError("outputs: cv", self.variation, "a number from 0.01 to 10")

    @property
    def label(self) -> str:
        """In words."""
        if self.law == "geometric":
            return "geometric outputs"
        return f"log-normal outputs (variation {self.variation:g})"

    def lengths(self, mean: int, longest: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Lengths in tokens, ascending, and the probability of each.

        Args:
            longest: The most that fits; longer outputs end there.

        Raises:
            InputError: Too many of them would end there for the mean to be kept.
        """
        if mean == 1:
            return np.ones(1, np.int64), np.ones(1)
        upper = self._geometric(mean) if self.law == "geometric" else self._lognormal(mean)
        upper = upper[:longest]
        upper[-1] = 1.0
        shares = np.diff(upper, prepend=0.0)
        lengths = np.arange(1, len(shares) + 1)
        found = float(lengths @ shares)
        if found < (1 - LOST_MEAN) * mean:
            allowed = f"a law under which at most {LOST_MEAN:.0%} of the mean {mean} is lost there"
            raise InputError("outputs", f"cut at the {longest} tokens that fit", allowed)
        return lengths[shares > 0], shares[shares > 0]

    def _geometric(self, mean: int) -> NDArray[np.float64]:
        """P(length ≤ 1), P(length ≤ 2), …"""
        stay = 1 - 1 / mean
        count = math.ceil(math.log(TAIL) / math.log(stay))
        return np.asarray(1 - stay ** np.arange(1, count + 1))

    def _lognormal(self, mean: int) -> NDArray[np.float64]:
        """The same, the median such that the rounded lengths have the mean."""
        from scipy.optimize import brentq
        from scipy.special import ndtr, ndtri

        sigma = math.sqrt(math.log1p(self.variation**2))
        count = math.ceil(mean * math.exp(sigma * -float(ndtri(TAIL)))) + 1
        edges = np.log(np.arange(1, count + 1) + 0.5)

        def upper(mu: float) -> NDArray[np.float64]:
            return np.asarray(ndtr((edges - mu) / sigma))

        def excess(mu: float) -> float:
            # E[length] = Σ P(length > n) over n ≥ 0.
            return 1.0 + float((1 - upper(mu)).sum()) - mean

        mu = math.log(mean)
        return upper(brentq(excess, mu - 5 * sigma**2 - 5, mu + 1, xtol=1e-13))


def parse_outputs(text: str) -> Outputs:
    """Read ``geometric`` or ``lognormal:cv=1.2``.

    Raises:
        InputError: Another law or parameter, or a value out of range.
    """
    law, _, rest = text.partition(":")
    if law not in OUTPUT_LAWS:
        raise InputError("outputs", text, "geometric, or lognormal:cv=1.2")
    if not rest:
        return Outputs(law)
    name, _, value = rest.partition("=")
    if law == "geometric" or name != "cv":
        raise InputError("outputs", text, "geometric, or lognormal:cv=1.2")
    try:
        return Outputs(law, float(value))
    except ValueError:
        raise InputError("outputs: cv", value, "a number from 0.01 to 10") from None
