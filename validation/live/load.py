"""A workload learned from windows between scrapes, each weighing half as much every half-life.

The rate is that of now. Two estimates of it are kept: the weighted mean, which is right while the
rate is constant, and the end of a weighted straight line, which is right while it rises or falls.
The interval holds the intervals of both, so that it is right in either case and too wide in one.
Where the newest windows cannot belong to the same rate or lengths as those before (one chance in
10⁸), the earlier ones are forgotten. Both count arrivals as Poisson, their variance multiplied by
the dispersion that the windows show where that is above 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fluid.traces.marginals import Interval, Marginal
from fluid.traces.prometheus import Histogram, marginal
from fluid.traces.snapshot import Snapshot
from fluid.traces.strata import workload_of_digest
from fluid.workload import Workload
from validation.live.seen import Seen

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Of all intervals."""

_NEWEST = (1, 2, 4, 8)
"""So many newest windows are compared with those before."""

_CHANCE = 1e-8
"""Of a change that is none, per comparison."""

_DEEP = 6
"""Half-lives after which a window is dropped: it weighs 1/64."""

_FEWEST_FOR_A_LINE = 4
_FEWEST_LENGTHS = 30
_SAME_MIX = 0.01


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval, and its standard deviation by chance alone."""

    value: float
    low: float
    high: float
    sd: float

    @property
    def relative_sd(self) -> float:
        """Standard deviation ÷ value."""
        return self.sd / self.value if self.value else np.inf


@dataclass(frozen=True)
class Load:
    """What is known of the load of one engine.

    Attributes:
        rate_per_s: Arrivals per second now.
        prompt_tokens, output_tokens: Mean lengths of requests that finished.
        requests: How many finished requests that is worth.
        prompt, output: Their lengths, as far as buckets tell.
    """

    rate_per_s: Estimate
    prompt_tokens: Estimate
    output_tokens: Estimate
    requests: float
    prompt: Marginal
    output: Marginal

    @cached_property
    def snapshot(self) -> Snapshot:
        """Lengths as other snapshots have them."""
        requests = max(round(self.requests), 1)
        return Snapshot(self.prompt, self.output, requests, self.rate_per_s.value, ())

    def like(self, mix: Workload) -> bool:
        """Whether a mix has these mean lengths within 1 %, so that no other needs to be found."""
        prompt, output = (
            float(mix.shares @ tokens)
            for tokens in (mix.columns.prefill_tokens, mix.columns.decode_tokens)
        )
        return (
            abs(prompt / self.prompt_tokens.value - 1) < _SAME_MIX
            and abs(output / self.output_tokens.value - 1) < _SAME_MIX
        )

    @cached_property
    def workload(self) -> Workload:
        """A few classes like it; which prompt met which output, buckets do not tell."""
        found = self.snapshot.digest()
        source = "metrics of a running engine, prompt and output lengths taken as independent"
        return workload_of_digest(found, "live", source=source)

    @cached_property
    def memory_sum(self) -> Interval:
        """Least and most mean token·iterations per request that the buckets allow."""
        return self.snapshot.intervals()["memory sum"]

    @cached_property
    def kv_per_decode_token(self) -> float:
        """Mean KV tokens that a request in decode reads, lengths taken as independent."""
        _, prompt, output, memory, _ = self.snapshot.digest().means
        return float((memory - prompt) / max(output - 1, 1e-9)) if output > 1 else float(prompt)


@dataclass
class LoadLearner:
    """Windows of one server, newest last.

    Attributes:
        half_life_s: After so long a window weighs half as much.
    """

    half_life_s: float = 900.0
    windows: deque[Seen] = field(default_factory=deque)

    def add(self, seen: Seen) -> str | None:
        """One more window; says what changed, where it cannot belong to those before."""
        self.windows.append(seen)
        while seen.at_s - self.windows[0].at_s > _DEEP * self.half_life_s:
            self.windows.popleft()
        found = _change(self.windows)
        if found is None:
            return None
        newest, told = found
        self.windows = deque(list(self.windows)[-newest:])
        return told

    def load(self) -> Load | None:
        """What is known; None until requests have finished."""
        if not self.windows:
            return None
        weights = self._weights()
        engines = np.array([one.engines for one in self.windows])
        finished = np.array([one.finished for one in self.windows]) / engines
        worth = float(weights @ finished) ** 2
        if worth == 0:
            return None
        # Of all engines: each is as good a witness of the lengths.
        requests = worth / float(weights**2 @ finished) * float(engines.mean())
        prompt, output = (
            marginal(_pooled(self.windows, weights, name, requests), name, "the metrics")[0]
            for name in ("prompts", "outputs")
        )
        return Load(
            rate_per_s=_rate(self.windows, weights),
            prompt_tokens=_mean(prompt, requests),
            output_tokens=_mean(output, requests),
            requests=requests,
            prompt=prompt,
            output=output,
        )

    def _weights(self) -> Floats:
        ends = np.array([one.at_s for one in self.windows])
        return np.asarray(0.5 ** ((ends[-1] - ends) / self.half_life_s))


def _pooled(windows: Sequence[Seen], weights: Floats, name: str, requests: float) -> Histogram:
    """Weighted sum of histograms, scaled to so many requests."""
    found = Histogram()
    for one, weight in zip(windows, weights, strict=True):
        histogram: Histogram = getattr(one, name)
        found.count += weight * histogram.count
        found.total_tokens += weight * histogram.total_tokens
        for end, count in histogram.cumulative.items():
            found.cumulative[end] += weight * count
    scale = requests / found.count
    found.count *= scale
    found.total_tokens *= scale
    for end in found.cumulative:
        found.cumulative[end] *= scale
    return found


def _mean(lengths: Marginal, requests: float) -> Estimate:
    """Exact for the requests seen; as an estimate for those to come, by the largest variance that
    fits the buckets."""
    spread = max(lengths.second_moment()[1] - lengths.mean**2, 0.0)
    sd = float(np.sqrt(spread / requests))
    low, high = max(lengths.mean - 1.96 * sd, 1.0), lengths.mean + 1.96 * sd
    return Estimate(lengths.mean, low, high, sd)


def _rate(windows: Sequence[Seen], weights: Floats) -> Estimate:
    """Arrivals per second and engine, at the end of the last window."""
    counts = np.array([one.arrived for one in windows])
    spans = np.array([one.seconds * one.engines for one in windows])
    excess = dispersion(windows)
    constant = _constant(counts, spans, weights, excess)
    if len(windows) < _FEWEST_FOR_A_LINE:
        return constant
    line = _line(windows, counts, spans, weights, excess)
    inside = line.low <= constant.value <= line.high
    chosen = constant if inside else line
    low, high = min(constant.low, line.low), max(constant.high, line.high)
    return Estimate(chosen.value, low, high, chosen.sd)


def _constant(counts: Floats, spans: Floats, weights: Floats, excess: float) -> Estimate:
    total, exposure = float(weights @ counts), float(weights @ spans)
    if total == 0:
        high = float(-np.log((1 - LEVEL) / 2) * excess / spans.sum())
        return Estimate(0.0, 0.0, high, high)
    worth = total**2 / float(weights**2 @ counts) / excess
    low, high = gamma_interval(worth)
    value = total / exposure
    return Estimate(value, low * value, high * value, value / float(np.sqrt(worth)))


def gamma_interval(worth: float) -> Interval:
    """Least and most of a mean count ÷ a count of `worth` Poisson arrivals (Garwood)."""
    tail = (1 - LEVEL) / 2
    return (
        float(stats.gamma.ppf(tail, worth)) / worth,
        float(stats.gamma.ppf(1 - tail, worth + 1)) / worth,
    )


def _line(
    windows: Sequence[Seen], counts: Floats, spans: Floats, weights: Floats, excess: float
) -> Estimate:
    """The weighted least-squares line of the rate, at the end of the last window."""
    ends = np.array([one.at_s for one in windows])
    middles = ends - np.array([one.seconds for one in windows]) / 2 - ends[-1]
    design = np.column_stack([np.ones_like(middles), middles])
    # The rate at 0 is a weighted sum of the counts.
    share = (np.linalg.pinv(design.T @ (design * (weights * spans)[:, None])) @ design.T)[0]
    share = share * weights
    value = float(share @ counts)
    mean = float(weights @ counts) / float(weights @ spans)
    sd = float(np.sqrt(excess * float(share**2 @ (mean * spans))))
    low, high = max(value - 1.96 * sd, 0.0), max(value + 1.96 * sd, 0.0)
    return Estimate(max(value, 0.0), low, high, sd)


def dispersion(windows: Sequence[Seen]) -> float:
    """Variance of the counts ÷ their mean around a straight line, at least 1."""
    counts = np.array([one.arrived for one in windows])
    spans = np.array([one.seconds * one.engines for one in windows])
    if len(counts) < 8 or counts.sum() == 0:
        return 1.0
    ends = np.array([one.at_s for one in windows])
    line = np.polynomial.Polynomial.fit(ends, counts / spans, 1, w=spans**0.5)
    fitted = line(ends)
    expected = np.maximum(fitted, counts.sum() / spans.sum() / 4) * spans
    return max(float(((counts - expected) ** 2 / expected).sum()) / (len(counts) - 2), 1.0)


def _change(windows: Sequence[Seen]) -> tuple[int, str] | None:
    """How many newest windows belong together and not to the others, and in what they differ."""
    found = list(windows)
    spreads = _spreads(found)
    for newest in _NEWEST:
        old, new = found[:-newest], found[-newest:]
        if not old:
            return None
        told = _rate_change(old, new) or _length_change(old, new, spreads)
        if told:
            return newest, told
    return None


def _spreads(windows: Sequence[Seen]) -> dict[str, float]:
    """Variance of prompt and output lengths over all windows, at most."""
    count = sum(one.finished for one in windows)
    if count == 0:
        return {}
    found = {}
    for name in ("prompts", "outputs"):
        pooled = _pooled(windows, np.ones(len(windows)), name, count)
        lengths = marginal(pooled, name, "the metrics")[0]
        found[name] = lengths.second_moment()[1] - lengths.mean**2
    return found


def _rate_change(old: Sequence[Seen], new: Sequence[Seen]) -> str | None:
    """Whether one rate can have given both counts: exact for Poisson arrivals."""
    excess = dispersion(old)
    spans = [sum(one.seconds * one.engines for one in part) for part in (old, new)]
    arrived = [sum(one.arrived for one in part) for part in (old, new)]
    total = round(sum(arrived) / excess)
    share = spans[1] / sum(spans)
    low = stats.binom.cdf(round(arrived[1] / excess), total, share)
    high = stats.binom.sf(round(arrived[1] / excess) - 1, total, share)
    if min(low, high) > _CHANCE:
        return None
    before, now = (count / span for count, span in zip(arrived, spans, strict=True))
    return f"the rate went from {before:.3g} to {now:.3g} /s"


def _length_change(
    old: Sequence[Seen], new: Sequence[Seen], spreads: dict[str, float]
) -> str | None:
    """Whether mean lengths differ by more than their spread allows."""
    counts = [sum(one.finished for one in part) for part in (old, new)]
    if min(counts) < _FEWEST_LENGTHS:
        return None
    for name, spread in spreads.items():
        tokens = [sum(getattr(one, name).total_tokens for one in part) for part in (old, new)]
        before, now = (total / count for total, count in zip(tokens, counts, strict=True))
        sd = np.sqrt(spread * sum(1 / count for count in counts))
        if abs(now - before) > stats.norm.isf(_CHANCE) * sd:
            return f"the mean of {name} went from {before:,.4g} to {now:,.4g} tokens"
    return None
