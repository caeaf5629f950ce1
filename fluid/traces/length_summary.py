"""From means, deviations and percentiles of token lengths to a load: what reports hold of requests.

Each kind of length becomes a `Marginal`, whose mean is the report's:

- percentiles are the ends of buckets, with the share of the requests between two of them; inside a
  bucket lengths are spread as evenly as the mean allows, and the standard deviation if it is known
  (`fluid.traces.snapshot`);
- mean and standard deviation are two lengths, one deviation below and one above the mean, half of
  the requests each, so that the second moment is right, and with it everything that independent
  lengths mean to the fluid model; where one deviation below is less than 1 token, 1 token and the
  length that gives both figures;
- a mean alone is that length, or the two whole ones around it.

Prompts and outputs are independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fluid.errors import InputError
from fluid.traces.lines import finite_number
from fluid.traces.marginals import Marginal
from fluid.traces.snapshot import Snapshot
from fluid.traces.trace import ALL_AT_ONCE, MOST_TOKENS

LOST = (
    "a summary has no requests: which prompt met which output is lost, and arrivals are taken as"
    " Poisson"
)


@dataclass(frozen=True)
class LengthSummary:
    """What a report says of one kind of length.

    Attributes:
        kind: "prompt" or "output".
        deviation: Standard deviation, None where it is not known.
        quantiles: Lengths by the share of requests that are at most as long, 0 the shortest and 1
            the longest.
    """

    kind: str
    mean: float
    deviation: float | None
    quantiles: Mapping[float, float]

    @classmethod
    def read(
        cls, kind: str, mean: Any, deviation: Any, quantiles: Mapping[float, Any], file: str
    ) -> LengthSummary:
        """Check what a report says; absent figures are None.

        Raises:
            InputError: A figure is no length, or percentiles fall.
        """
        mean = _length(mean, f"mean {kind} tokens", 1.0, file)
        if deviation is not None:
            deviation = _length(deviation, f"deviation of {kind} tokens", 0.0, file)
        known = {
            share: _length(tokens, f"{100 * share:g} % of {kind} tokens", 1.0, file)
            for share, tokens in sorted(quantiles.items())
            if tokens is not None
        }
        lengths = list(known.values())
        if sorted(lengths) != lengths:
            allowed = "percentiles that do not fall"
            raise InputError(f"percentiles of {kind} tokens", lengths, allowed, file)
        return cls(kind, mean, deviation, known)

    def marginal(self, requests: int) -> Marginal:
        """The distribution that stands for it, of so many requests."""
        buckets = _buckets(self.quantiles, self.mean, requests)
        if buckets is not None:
            return self._with_square(buckets)
        if self.deviation:
            return _two_lengths(self.mean, self.deviation)
        return _whole_lengths(self.mean)

    def _with_square(self, buckets: Marginal) -> Marginal:
        if self.deviation is None:
            return buckets
        square = float(np.clip(self.mean**2 + self.deviation**2, *buckets.second_moment()))
        return replace(buckets, square=square)

    @property
    def spread_known(self) -> bool:
        """Whether the report says how far lengths are from their mean."""
        return bool(self.quantiles) or self.deviation is not None

    def caveat(self, requests: int) -> str:
        """How the marginal was made, in a sentence."""
        if _buckets(self.quantiles, self.mean, requests) is not None:
            ends = ", ".join(f"{100 * share:g}" for share in self.quantiles)
            deviation = ", the standard deviation" if self.deviation is not None else ""
            return (
                f"{self.kind} lengths match the mean{deviation} and the percentiles {ends}; in"
                " between they are spread as evenly as these allow"
            )
        if self.deviation is not None:
            dropped = "; its percentiles do not fit its mean" if self.quantiles else ""
            return (
                f"{self.kind} lengths match the mean and the standard deviation by two"
                f" lengths{dropped}: the longest ones are unknown"
            )
        return (
            f"of {self.kind} lengths only the mean is known, and all are of it: the spread, which"
            " takes memory, is lost"
        )


def summary_snapshot(
    prompt: LengthSummary,
    output: LengthSummary,
    requests: int,
    rate_per_s: float | None,
    caveats: tuple[str, ...] = (),
    finite_job: bool = False,
) -> Snapshot:
    """The load that a report's figures describe."""
    return Snapshot(
        prompt.marginal(requests),
        output.marginal(requests),
        requests,
        None if finite_job else rate_per_s,
        (
            LOST,
            *((ALL_AT_ONCE,) if finite_job else ()),
            *caveats,
            *(one.caveat(requests) for one in (prompt, output)),
        ),
        bounded=prompt.spread_known and output.spread_known,
        finite_job=finite_job,
        origin="a summary",
    )


def requests_and_rate(count: Any, rate: Any, file: str) -> tuple[int, float | None]:
    """How many requests a report is of, and their rate where it has one above 0.

    Raises:
        InputError: There is none.
    """
    requests = round(finite_number(count, "requests", "requests", file))
    if requests < 1:
        raise InputError("requests", count, "at least one request that succeeded", file)
    if rate is None:
        return requests, None
    return requests, finite_number(rate, "requests per second", "requests per second", file) or None


def _length(value: Any, place: str, least: float, file: str) -> float:
    length = finite_number(value, place, "tokens", file)
    if not least <= length < MOST_TOKENS:
        raise InputError(place, value, f"{least:g} to {MOST_TOKENS:,} tokens", file)
    return length


def _buckets(quantiles: Mapping[float, float], mean: float, requests: int) -> Marginal | None:
    """Buckets between percentiles; None without any inside, or where the mean does not fit."""
    if not any(0 < share < 1 for share in quantiles):
        return None
    known = {0.0: 1.0, **quantiles}
    shares = np.array(sorted(known))
    lengths = np.array([known[share] for share in shares])
    open_above = shares[-1] < 1
    if open_above:
        shares, lengths = np.append(shares, 1.0), np.append(lengths, lengths[-1])
    weights, low, high = np.diff(shares), lengths[:-1].copy(), lengths[1:].copy()
    if open_above:
        # The longest of all, if every other request were as short as the percentiles allow.
        high[-1] = low[-1] + max(requests * (mean - weights @ low), 0.0)
    slack = 1e-6 * mean
    if not weights @ low - slack <= mean <= weights @ high + slack:
        return None
    inside = float(np.clip(mean, weights @ low, weights @ high))
    return Marginal(weights, low, high, inside, open_above)


def _two_lengths(mean: float, deviation: float) -> Marginal:
    if mean - deviation >= 1:
        lengths, shares = [mean - deviation, mean + deviation], [0.5, 0.5]
    elif mean > 1:
        longer = mean + deviation**2 / (mean - 1)
        above = (mean - 1) / (longer - 1)
        lengths, shares = [1.0, longer], [1 - above, above]
    else:
        return _whole_lengths(mean)
    ends = np.array(lengths)
    return Marginal(np.array(shares), ends, ends, mean)


def _whole_lengths(mean: float) -> Marginal:
    above = mean - math.floor(mean)
    if above < 1e-9:
        ends = np.array([float(math.floor(mean))])
        return Marginal(np.ones(1), ends, ends, mean)
    ends = np.array([math.floor(mean), math.ceil(mean)], dtype=float)
    return Marginal(np.array([1 - above, above]), ends, ends, mean)
