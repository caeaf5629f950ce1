"""Histograms or summaries of lengths: what is left of a load when its requests are gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fluid.traces.digest import FIGURES, Digest, moments
from fluid.traces.marginals import (
    Coupling,
    Floats,
    Interval,
    Marginal,
    heaviest,
    independent_memory_sum,
    lightest,
    memory_sum,
)

_LENGTHS_PER_BUCKET = 16


@dataclass(frozen=True)
class Snapshot:
    """Prompt and output lengths of a load, each by itself.

    Attributes:
        requests: How many requests were counted.
        rate_per_s: Their rate, None where the snapshot does not tell.
        caveats: What a user must know before trusting the result, a sentence each.
        bounded: Whether the marginals bound the lengths; where only a mean is known they do not.
        finite_job: Whether all requests were sent at once, so that there is no arrival rate.
        origin: What the lengths are known from, in words.
    """

    prompt: Marginal
    output: Marginal
    requests: int
    rate_per_s: float | None
    caveats: tuple[str, ...]
    bounded: bool = True
    finite_job: bool = False
    origin: str = "histograms"

    def digest(self, lengths: str = "independent") -> Digest:
        """Requests that fit the histograms, one case of `LENGTHS`.

        Independent ones are spread in each bucket as evenly as the mean allows.
        """
        coupling = LENGTHS[lengths](self.prompt, self.output)
        sums = moments(coupling.prompts, coupling.outputs) * coupling.shares[:, None]
        return Digest(self.requests * sums, self.rate_per_s)

    def intervals(self) -> dict[str, Interval]:
        """Each mean of `FIGURES` over all distributions and couplings that fit the histograms.

        Empty where nothing bounds the lengths.
        """
        if not self.bounded:
            return {}
        exact = ((self.prompt.mean,) * 2, (self.output.mean,) * 2)
        bounds = (*exact, memory_sum(self.prompt, self.output), self.prompt.second_moment())
        return dict(zip(FIGURES[1:], bounds, strict=True))

    def independent_memory_sum(self) -> Interval:
        """The memory sum if lengths are independent, over all distributions that fit."""
        return independent_memory_sum(self.prompt, self.output)


def _independent(prompt: Marginal, output: Marginal) -> Coupling:
    (p, prompts), (q, outputs) = _likely(prompt), _likely(output)
    return Coupling(
        np.outer(p, q).ravel(), np.repeat(prompts, len(outputs)), np.tile(outputs, len(prompts))
    )


LENGTHS: dict[str, Callable[[Marginal, Marginal], Coupling]] = {
    "independent": _independent,
    "lightest": lightest,
    "heaviest": heaviest,
}
"""How prompts meet outputs, which a snapshot does not tell."""


def _likely(marginal: Marginal) -> tuple[Floats, Floats]:
    """The most even lengths; where their mean square is known, mixed with an extreme to have it.

    Both have the shares of the buckets and the mean, and so has every mixture of them.
    """
    shares, lengths = _most_even(marginal)
    if marginal.square is None:
        return shares, lengths
    square = shares @ lengths**2
    ends, at = marginal.least_spread() if square > marginal.square else marginal.most_spread()
    gap = ends @ at**2 - square
    mixed = float(np.clip((marginal.square - square) / gap, 0, 1)) if gap else 0.0
    shares, lengths = np.append((1 - mixed) * shares, mixed * ends), np.append(lengths, at)
    return shares[shares > 0], lengths[shares > 0]


def _most_even(marginal: Marginal) -> tuple[Floats, Floats]:
    """Lengths over each bucket, with shares that fall or rise by one exponent to give the mean.

    That is the distribution of largest entropy on these lengths.
    """
    high = _likely_high(marginal)
    lengths = np.linspace(marginal.low, high, _LENGTHS_PER_BUCKET)
    widths = high - marginal.low
    if not widths.any():
        return marginal.shares, marginal.low

    def shares(tilt: float) -> Floats:
        exponents = tilt * (lengths - marginal.low)
        weights = np.exp(exponents - exponents.max(axis=0))
        return np.asarray(marginal.shares * weights / weights.sum(axis=0))

    def excess(tilt: float) -> float:
        return float((shares(tilt) * lengths).sum()) - marginal.mean

    # Steeper than this, one end of each bucket has all the weight in double precision.
    steepest = 750 * _LENGTHS_PER_BUCKET / widths[widths > 0].min()
    if excess(-steepest) >= 0:
        tilt = -steepest
    elif excess(steepest) <= 0:
        tilt = steepest
    else:
        from scipy.optimize import brentq

        tilt = brentq(excess, -steepest, steepest, xtol=1e-15, rtol=1e-14)
    chosen = shares(tilt).ravel()
    kept = chosen > 1e-12
    return chosen[kept], lengths.ravel()[kept]


def _likely_high(marginal: Marginal) -> Floats:
    """Ends of the buckets, an open one ending where the next of vLLM's 1-2-5 series would.

    Further, if the mean needs it: the end that follows from the mean is that of a single request.
    """
    high = marginal.high.copy()
    if marginal.open_above:
        others = marginal.shares[:-1] @ high[:-1]
        needed = (marginal.mean - others) / marginal.shares[-1]
        high[-1] = min(high[-1], max(2.5 * marginal.low[-1], 2 * needed))
    return high
