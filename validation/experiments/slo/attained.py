"""By how much a simulation keeps promises: one figure for each replication, limit by limit.

Limits change nothing of what a server does, so that one run answers for other limits too: here for
each limit relaxed alone, on the very same requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fluid.service_levels import Promise
from fluid.workload import LIMITS
from validation.experiments.slo.levels import Kept, judged, share_interval
from validation.policies import ConfiguredPolicy
from validation.simulator.cpu import Job, run_reading
from validation.simulator.fleet import as_one, run_fleets
from validation.simulator.metrics import (
    Floats,
    Interval,
    Replication,
    collect,
    interval,
    verdict,
)
from validation.simulator.model import Model
from validation.simulator.runs import Runs
from validation.simulator.state import Lane

GROWS = math.inf
"""Excess where the backlog grows: no promise is kept for long."""

_UNSEEN = math.log(0.5)
"""Excess, at least, where too few requests arrived for one of them to miss, and none did."""

_UNKNOWN = 1.0
"""Half width where that of an excess is not known, as of a single replication."""

Place = tuple[int, str]
"""A promise by its number, and one of its limits."""


@dataclass(frozen=True)
class Requests:
    """What the requests of one promise met in one replication.

    Attributes:
        arrived: Requests that arrived in the window.
        met: Of these, those that completed within all limits.
        within: Those within each limit; `relaxed`: within all, that limit relaxed.
        mean_s, quantile_s: Of those that completed, or had not ended when the run did: up to then,
            so that a rule that never serves somebody is not praised for the others.
    """

    arrived: int
    met: int
    within: dict[str, int]
    relaxed: dict[str, int]
    mean_s: dict[str, float]
    quantile_s: dict[str, float]


@dataclass(frozen=True)
class Criterion:
    """What has to hold: a share of requests, or a mean below its limit.

    Attributes:
        limit: Of the mean that it is about; None for the share within all limits.
    """

    promise: int
    limit: str | None


def criteria(kept: Sequence[Promise]) -> tuple[Criterion, ...]:
    """All that must hold for the promises to be kept."""
    found: list[Criterion] = []
    for number, one in enumerate(kept):
        if one.slo.quantile == "mean":
            found += [Criterion(number, name) for name in one.slo.limits_s]
        else:
            found.append(Criterion(number, None))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Attained:
    """Replications at one rate, read by promise.

    Attributes:
        requests: By replication, then by promise.
        relaxation: Factor of the limits that are relaxed.
    """

    rate_per_s: float
    promises: tuple[Promise, ...]
    model: Model
    replications: tuple[Replication, ...]
    requests: tuple[tuple[Requests, ...], ...]
    relaxation: float

    @cached_property
    def backlog(self) -> str:
        """The verdict on the backlog: "stable", "unstable" or "undecided".

        One that is bounded anyway counts as stable.
        """
        if not (self.model.traffic.may_grow or any(one.stuck for one in self.replications)):
            return "stable"
        return verdict(self.replications).word

    @property
    def grows(self) -> bool:
        """Whether the backlog grows for certain."""
        return self.backlog == "unstable"

    def arrived(self, promise: int) -> int:
        """Requests of a promise in the windows of all replications."""
        return sum(one[promise].arrived for one in self.requests)

    def share(self, promise: int, limit: str | None = None, relaxed: str | None = None) -> Interval:
        """Of the requests of a promise, those within all limits, or within one."""
        rows = [one[promise] for one in self.requests]
        if relaxed is not None:
            met = [one.relaxed[relaxed] for one in rows]
        else:
            met = [one.met if limit is None else one.within[limit] for one in rows]
        arrived = np.array([one.arrived for one in rows], float)
        return share_interval(np.array(met, float), arrived)

    def mean_s(self, promise: int, limit: str) -> Interval:
        """Mean TTFT, TPOT or latency of a promise's requests, over replications that had any."""
        means = np.array([one[promise].mean_s[limit] for one in self.requests])
        some = means[~np.isnan(means)]
        return interval(some) if len(some) else Interval(math.nan, math.nan)

    def quantile_s(self, promise: int, limit: str) -> float:
        """Its quantile as the promise has it (0.99 for a mean), mean over replications."""
        return float(np.nanmean([one[promise].quantile_s[limit] for one in self.requests]))

    def excess(self, criterion: Criterion, relaxed: str | None = None) -> float:
        """Logarithm of what misses over what may miss; or of the mean over its limit. ≤ 0: kept.

        Smooth in the rate, nearly straight, and the larger the higher the rate.
        """
        slo = self.promises[criterion.promise].slo
        if self.grows:
            return GROWS
        if criterion.limit is not None:
            factor = self.relaxation if relaxed == criterion.limit else 1.0
            mean_s = self.mean_s(criterion.promise, criterion.limit).mean
            if math.isnan(mean_s):
                return _UNSEEN
            return math.log(mean_s / (slo.limits_s[criterion.limit] * factor))
        assert slo.quantile != "mean"
        arrived = self.arrived(criterion.promise)
        if arrived == 0:
            return _UNSEEN
        missing = (1 - self.share(criterion.promise, relaxed=relaxed).mean) / (1 - slo.quantile)
        least = 0.5 / (arrived * (1 - slo.quantile))
        return max(math.log(missing) if missing > 0 else -math.inf, min(math.log(least), _UNSEEN))

    def spread(self, criterion: Criterion) -> float:
        """Half width of the interval of that logarithm, about."""
        if criterion.limit is not None:
            found = self.mean_s(criterion.promise, criterion.limit)
            half = found.half_width / found.mean
        else:
            found = self.share(criterion.promise)
            half = found.half_width / max(1 - found.mean, 1e-12)
        return half if math.isfinite(half) else _UNKNOWN

    def verdict(self, criterion: Criterion) -> Kept:
        """Whether it is kept, by its interval; not before the backlog is known not to grow.

        A short run may end before a growing backlog has broken anything.
        """
        if self.grows:
            return "broken"
        word = self._by_interval(criterion)
        return "undecided" if word == "kept" and self.backlog != "stable" else word

    def _by_interval(self, criterion: Criterion) -> Kept:
        slo = self.promises[criterion.promise].slo
        if criterion.limit is not None:
            limit_s = slo.limits_s[criterion.limit]
            mean = self.mean_s(criterion.promise, criterion.limit)
            return judged(limit_s - mean.high, limit_s - mean.low)
        assert slo.quantile != "mean"
        share = self.share(criterion.promise)
        return judged(share.low - slo.quantile, share.high - slo.quantile)


def attained(
    model: Model,
    policy: ConfiguredPolicy,
    kept: tuple[Promise, ...],
    rate_per_s: float,
    runs: Runs,
    relaxation: float,
    servers: int = 1,
) -> Attained:
    """Simulate one rate and read what its requests met.

    Args:
        servers: So many behind `least_outstanding_tokens`; rate and runs are those of all together.

    Raises:
        InputError: As `run_reading`, or `run_fleets` for more than one server.
    """
    jobs = [
        Job(policy, number, runs.seed, model.rate_scale(rate_per_s))
        for number in range(runs.replications)
    ]

    def read(lane: Lane) -> tuple[Replication, tuple[Requests, ...]]:
        return collect(lane), _requests(model, lane, kept, relaxation)

    if servers == 1:
        done = run_reading(model, jobs, runs.requests, read)
    else:
        done = run_fleets(model, jobs, servers, runs.requests, lambda one: read(as_one(one)))
    return Attained(
        rate_per_s,
        kept,
        model,
        tuple(one for one, _ in done),
        tuple(two for _, two in done),
        relaxation,
    )


def _requests(
    model: Model, lane: Lane, kept: tuple[Promise, ...], relaxation: float
) -> tuple[Requests, ...]:
    """Of the requests that arrived in the window, as `validation.simulator.recording` counts."""
    scalars = lane.scalars[0]
    window = slice(int(scalars["cohort_start"]), int(scalars["cohort_end"]))
    rows = lane.requests[window]
    shapes = model.shapes[rows["shape"]]
    completed = ~np.isnan(rows["completed_at_s"])
    ended = completed.copy()
    if len(lane.clients):
        ended |= ~np.isnan(lane.clients["left_at_s"][window])
    gaps = shapes["output_tokens"] - 1
    first_s, last_s = (
        np.where(~ended & np.isnan(rows[name]), scalars["clock_s"], rows[name])
        for name in ("first_token_at_s", "completed_at_s")
    )
    times = {
        "ttft_s": first_s - rows["arrived_at_s"],
        "tpot_s": (last_s - first_s) / np.maximum(gaps, 1),
        "latency_s": last_s - rows["arrived_at_s"],
    }
    seen = completed | ~ended
    has = {"ttft_s": seen, "tpot_s": completed & (gaps > 0), "latency_s": seen}
    return tuple(
        _of_promise(
            one,
            np.isin(shapes["report_class"], one.classes),
            completed,
            times,
            has,
            relaxation,
        )
        for one in kept
    )


def _of_promise(
    promise: Promise,
    own: NDArray[np.bool_],
    completed: NDArray[np.bool_],
    times: dict[str, Floats],
    has: dict[str, NDArray[np.bool_]],
    relaxation: float,
) -> Requests:
    limits = promise.slo.limits_s
    quantile = 0.99 if promise.slo.quantile == "mean" else promise.slo.quantile
    done = own & completed
    within = {name: done & (~has[name] | (times[name] <= limits[name])) for name in limits}
    eased = {
        name: done & (~has[name] | (times[name] <= limits[name] * relaxation)) for name in limits
    }
    everything = np.logical_and.reduce([within[name] for name in limits])
    known = {name: times[name][own & has[name]] for name in LIMITS}
    relaxed = {
        name: int(
            np.logical_and.reduce(
                [eased[one] if one == name else within[one] for one in limits]
            ).sum()
        )
        for name in limits
    }
    return Requests(
        arrived=int(own.sum()),
        met=int(everything.sum()),
        within={name: int(within[name].sum()) for name in limits},
        relaxed=relaxed,
        mean_s={n: float(one.mean()) if len(one) else math.nan for n, one in known.items()},
        quantile_s={
            n: float(np.quantile(one, quantile)) if len(one) else math.nan
            for n, one in known.items()
        },
    )
