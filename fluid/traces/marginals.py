"""Limits on what a histogram says of token lengths, over all distributions that fit it.

A histogram gives the share of requests in each bucket, and the exact mean. Write a distribution as
its quantile function f, which the buckets hold between two steps, a(u) ≤ f(u) ≤ b(u), with
∫ f = mean. The most spread one is f* = a up to some u* and b beyond: it has the largest ∫ f g for
every non-decreasing g, and the smallest for every non-increasing one (exchange argument).

The memory sum per request is E[l·l'] + (E[l'²] − E[l'])/2 (THEORY 2, engine convention), so with
quantile functions f of prompts and g of outputs, over all couplings and all distributions:

- at most ∫ f* g* + ½ g*² − ½ mean', prompts and outputs rising together;
- at least ∫ h g + ½ g² − ½ mean' with h(u) = f*(1 − u), prompts falling where outputs rise, and
  the g that minimises it: g = c − h between the steps, with c such that the mean is right. That g
  need not be whole; rounding it at random to whole lengths adds 1/8 at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Marginal:
    """A histogram of token lengths with its exact mean.

    Attributes:
        shares: Share of the requests in each bucket, above 0, summing to 1, shape (k,).
        low: Shortest length of each bucket, increasing, shape (k,).
        high: Longest length of each bucket, shape (k,).
        mean: Mean length, within the means that the buckets allow.
        open_above: Whether the last bucket has no end but the one that follows from the mean.
        square: Mean squared length, where it is known, within what buckets and mean allow.
    """

    shares: Floats
    low: Floats
    high: Floats
    mean: float
    open_above: bool = False
    square: float | None = None

    def most_spread(self) -> tuple[Floats, Floats]:
        """f* as (shares, lengths), lengths non-decreasing."""
        gains = self.shares * (self.high - self.low)
        still_needed = self.mean - self.shares @ self.low
        gained_above = np.cumsum(gains[::-1])[::-1] - gains
        taken = np.clip(still_needed - gained_above, 0, gains)
        at_high = self.shares * np.divide(taken, gains, out=np.zeros_like(gains), where=gains > 0)
        shares = np.column_stack([self.shares - at_high, at_high]).ravel()
        return shares, np.column_stack([self.low, self.high]).ravel()

    def least_spread(self) -> tuple[Floats, Floats]:
        """The distribution of smallest second moment, as (shares, lengths)."""
        least = _least_memory_outputs(self, np.ones(1), np.zeros(1))
        return least.shares, least.outputs

    def second_moment(self) -> Interval:
        """Smallest and largest E[l²]."""
        if self.square is not None:
            return self.square, self.square
        (p, least), (q, most) = self.least_spread(), self.most_spread()
        return float(p @ least**2), float(q @ most**2)


@dataclass(frozen=True)
class Coupling:
    """Shares of pairs of prompt and output length, each of shape (n,)."""

    shares: Floats
    prompts: Floats
    outputs: Floats

    @property
    def memory_sum(self) -> float:
        """Of a request, in the mean."""
        return float(self.shares @ (self.outputs * (self.prompts + (self.outputs - 1) / 2)))


def heaviest(prompt: Marginal, output: Marginal) -> Coupling:
    """What fits both histograms and has the largest memory sum."""
    (prompts, outputs), shares = _aligned(prompt.most_spread(), output.most_spread())
    return Coupling(shares, prompts, outputs)


def lightest(prompt: Marginal, output: Marginal) -> Coupling:
    """What fits both histograms and has the smallest memory sum."""
    shares, prompts = prompt.most_spread()
    return _least_memory_outputs(output, shares[::-1], prompts[::-1])


def memory_sum(prompt: Marginal, output: Marginal) -> Interval:
    """Smallest and largest memory sum per request, over all couplings."""
    return lightest(prompt, output).memory_sum, heaviest(prompt, output).memory_sum


def independent_memory_sum(prompt: Marginal, output: Marginal) -> Interval:
    """The same where prompt and output lengths are independent."""
    least, most = output.second_moment()
    base = prompt.mean * output.mean - output.mean / 2
    return base + least / 2, base + most / 2


def _least_memory_outputs(output: Marginal, shares: Floats, prompts: Floats) -> Coupling:
    """The outputs g that minimise ∫ h g + ½ g², for prompts h given by falling steps."""
    steps = shares, prompts
    (low, falling), widths = _aligned((output.shares, output.low), steps)
    (high, _), _ = _aligned((output.shares, output.high), steps)

    def excess(level: float) -> float:
        return float(widths @ np.clip(level - falling, low, high)) - output.mean

    bottom, top = float((low + falling).min()), float((high + falling).max())
    if excess(bottom) >= 0:
        level = bottom
    elif excess(top) <= 0:
        level = top
    else:
        from scipy.optimize import brentq

        level = brentq(excess, bottom, top, xtol=1e-9 * max(top, 1.0), rtol=1e-14)
    return Coupling(widths, falling, np.clip(level - falling, low, high))


def _aligned(
    first: tuple[Floats, Floats], second: tuple[Floats, Floats]
) -> tuple[tuple[Floats, Floats], Floats]:
    """Values of two step functions (widths, values) on common steps, and those steps' widths."""
    ends = [np.cumsum(widths) / widths.sum() for widths, _ in (first, second)]
    edges = np.unique(np.concatenate([[0.0, 1.0], *ends]))
    middles = (edges[:-1] + edges[1:]) / 2
    values = [
        steps[np.searchsorted(end[:-1], middles)]
        for end, (_, steps) in zip(ends, (first, second), strict=True)
    ]
    return (values[0], values[1]), np.diff(edges)
