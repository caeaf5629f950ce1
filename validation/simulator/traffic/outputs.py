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
from fluid.files import read_text
from fluid.ranges import MOST_OUTPUT_TOKENS

OutputLaw = Literal["geometric", "lognormal", "empirical"]
OUTPUT_LAWS: tuple[OutputLaw, ...] = ("geometric", "lognormal", "empirical")

TAIL = 1e-9
"""Longer outputs than all but this share of them are left out."""

LOST_MEAN = 0.01
"""Share of the mean that outputs too long for memory may take away, or ones below a token add."""

MOST_LENGTHS = 1_000_000
"""In a sample; more lengths than that are no better known."""

_ALLOWED = "geometric, lognormal:cv=1.2, or empirical:FILE"


@dataclass(frozen=True)
class Outputs:
    """Law of the output lengths of a class; its mean is that of the class.

    Attributes:
        law: "geometric" on 1, 2, …; "lognormal", rounded to whole tokens; or "empirical", a sample
            that is stretched to the mean of the class.
        variation: Coefficient of variation of a log-normal law.
        sample: Lengths of an empirical law, in tokens; shares: of each, equal where there are none.

    Raises:
        InputError: Naming the first field that is out of range.

    >>> import fluidwait as fw
    >>> lengths, shares = fw.Outputs("lognormal", 0.5).lengths(mean=40, longest=2_000)
    >>> float(round(lengths @ shares, 6))
    40.0
    >>> lengths, shares = fw.Outputs("empirical", sample=(10, 20, 60)).lengths(15, 2_000)
    >>> lengths.tolist(), [round(one, 3) for one in shares.tolist()]
    ([5, 10, 30], [0.333, 0.333, 0.333])
    """

    law: OutputLaw = "geometric"
    variation: float = 1.0
    sample: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.law not in OUTPUT_LAWS:
            raise InputError("outputs", self.law, " or ".join(OUTPUT_LAWS))
        if not 0.01 <= self.variation <= 10:
            raise InputError("outputs: cv", self.variation, "a number from 0.01 to 10")
        if (self.law == "empirical") != bool(self.sample):
            allowed = "lengths for an empirical law, none for another"
            raise InputError("outputs: sample", f"{len(self.sample)} lengths", allowed)
        if len(self.sample) > MOST_LENGTHS:
            allowed = f"at most {MOST_LENGTHS:,}"
            raise InputError("outputs: sample", f"{len(self.sample)} lengths", allowed)
        if self.sample and not 1 <= min(self.sample) <= max(self.sample) <= MOST_OUTPUT_TOKENS:
            wrong = min(self.sample) if min(self.sample) < 1 else max(self.sample)
            raise InputError("outputs: sample", wrong, f"lengths from 1 to {MOST_OUTPUT_TOKENS}")
        if self.shares and len(self.shares) != len(self.sample):
            allowed = f"one for each of {len(self.sample)} lengths"
            raise InputError("outputs: shares", f"{len(self.shares)} shares", allowed)

    @property
    def label(self) -> str:
        """In words."""
        if self.law != "lognormal":
            return f"{self.law} outputs"
        return f"log-normal outputs (variation {self.variation:g})"

    def lengths(self, mean: int, longest: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Lengths in tokens, ascending, and the probability of each.

        Args:
            longest: The most that fits; longer outputs end there.

        Raises:
            InputError: Too many of them would end there for the mean to be kept, or a sample that
                cannot be stretched to so small a mean.
        """
        if mean == 1:
            return np.ones(1, np.int64), np.ones(1)
        if self.law == "empirical":
            return self._stretched(mean, longest)
        upper = self._geometric(mean) if self.law == "geometric" else self._lognormal(mean)
        upper = upper[:longest]
        upper[-1] = 1.0
        shares = np.diff(upper, prepend=0.0)
        lengths = np.arange(1, len(shares) + 1)
        _require_mean(float(lengths @ shares), mean, longest)
        return lengths[shares > 0], shares[shares > 0]

    def _stretched(self, mean: int, longest: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The sample times a factor; between two whole lengths both, so that the mean is exact."""
        sample = np.array(self.sample, dtype=float)
        shares = np.array(self.shares or np.full(len(sample), 1.0))
        shares /= shares.sum()
        exact = sample * (mean / float(sample @ shares))
        below = np.floor(exact)
        parts = np.concatenate([shares * (below + 1 - exact), shares * (exact - below)])
        whole = np.clip(np.concatenate([below, below + 1]), 1, longest).astype(np.int64)
        lengths, place = np.unique(whole, return_inverse=True)
        weights = np.bincount(place, parts).astype(np.float64)
        _require_mean(float(lengths @ weights), mean, longest)
        return lengths[weights > 0], weights[weights > 0]

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


def _require_mean(found: float, mean: int, longest: int) -> None:
    """Refuse lengths whose mean is no longer that of the class."""
    if found < (1 - LOST_MEAN) * mean:
        allowed = f"a law under which at most {LOST_MEAN:.0%} of the mean {mean} is lost there"
        raise InputError("outputs", f"cut at the {longest} tokens that fit", allowed)
    if found > (1 + LOST_MEAN) * mean:
        allowed = f"a sample that can be stretched to the mean {mean} without lengths below a token"
        raise InputError("outputs", "empirical", allowed)


def parse_outputs(text: str) -> Outputs:
    """Read ``geometric``, ``lognormal:cv=1.2`` or ``empirical:FILE``, a length on each line.

    Raises:
        InputError: Another law or parameter, a value out of range, or a file that is not readable
            or holds something else.
    """
    law, _, rest = text.partition(":")
    if law not in OUTPUT_LAWS:
        raise InputError("outputs", text, _ALLOWED)
    if law == "empirical":
        return Outputs("empirical", sample=_lengths_in(rest))
    if not rest:
        return Outputs(law)
    name, _, value = rest.partition("=")
    if law == "geometric" or name != "cv":
        raise InputError("outputs", text, _ALLOWED)
    try:
        return Outputs(law, float(value))
    except ValueError:
        raise InputError("outputs: cv", value, "a number from 0.01 to 10") from None


def _lengths_in(file: str) -> tuple[int, ...]:
    found = []
    for number, line in enumerate(read_text(file).split(), start=1):
        if not (line.isascii() and line.isdigit() and len(line) < 19):
            raise InputError(
                f"length {number}", line, "whole tokens, one length on each line", file
            )
        found.append(int(line))
    if not found:
        raise InputError("lengths", "none", "one on each line", file)
    return tuple(found)
