"""Histograms of prompt and output lengths: what is left of a load when its requests are gone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from fluid.traces.digest import FIGURES, Digest, moments
from fluid.traces.marginals import (
    Floats,
    Interval,
    Marginal,
    independent_memory_sum,
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
    """

    prompt: Marginal
    output: Marginal
    requests: int
    rate_per_s: float | None
    caveats: tuple[str, ...]

    def digest(self) -> Digest:
        """Requests with independent lengths, spread as evenly in each bucket as the mean allows."""
        (prompt_shares, prompts), (output_shares, outputs) = (
            _most_even(one) for one in (self.prompt, self.output)
        )
        weights = self.requests * np.outer(prompt_shares, output_shares).ravel()
        pairs = np.repeat(prompts, len(outputs)), np.tile(outputs, len(prompts))
        return Digest(moments(*pairs) * weights[:, None], self.rate_per_s)

    def intervals(self) -> dict[str, Interval]:
        """Each mean of `FIGURES` over all distributions and couplings that fit the histograms."""
        exact = ((self.prompt.mean,) * 2, (self.output.mean,) * 2)
        bounds = (*exact, memory_sum(self.prompt, self.output), self.prompt.second_moment())
        return dict(zip(FIGURES[1:], bounds, strict=True))

    def independent_memory_sum(self) -> Interval:
        """The memory sum if lengths are independent, over all distributions that fit."""
        return independent_memory_sum(self.prompt, self.output)


def _most_even(marginal: Marginal) -> tuple[Floats, Floats]:
    """Lengths over each bucket, with shares that fall or rise by one exponent to give the mean.

    That is the distribution of largest entropy on these lengths.
    """
    lengths = np.linspace(marginal.low, marginal.high, _LENGTHS_PER_BUCKET)
    scale = float(marginal.high.max())
    within = (lengths - marginal.low) / scale

    def shares(tilt: float) -> Floats:
        exponents = tilt * within
        weights = np.exp(exponents - exponents.max(axis=0))
        return np.asarray(marginal.shares * weights / weights.sum(axis=0))

    def excess(tilt: float) -> float:
        return float((shares(tilt) * lengths).sum()) - marginal.mean

    # At this tilt the lengths next to an end have no weight left in double precision.
    steepest = 750 * scale * _LENGTHS_PER_BUCKET / max(float(marginal.high.min()), 1.0)
    if excess(-steepest) >= 0:
        tilt = -steepest
    elif excess(steepest) <= 0:
        tilt = steepest
    else:
        tilt = brentq(excess, -steepest, steepest, xtol=1e-12, rtol=1e-14)
    chosen = shares(tilt).ravel()
    kept = chosen > 0
    return chosen[kept], lengths.ravel()[kept]
