"""What a replication leaves behind, and what replications together say, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fluid.statistics import half_width
from validation.simulator.backlog import Verdict, behind, verdict
from validation.simulator.netput import Backlog
from validation.simulator.prefix.state import PrefixLane
from validation.simulator.recording import GAP, find_quantiles
from validation.simulator.state import (
    HISTOGRAM_LOWEST_S,
    HISTOGRAM_RATIO,
    SCALARS,
    Lane,
)
from validation.simulator.traffic.ends import MET, MET_EACH

__all__ = ["Interval", "Replication", "Verdict", "collect", "interval", "verdict"]

Floats = NDArray[np.float64]

COLLAPSE_SHARE = 0.05
"""Work that evictions throw away at saturation from which on throughput has collapsed."""

QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class PrefixUse:
    """What a cache of prefixes did in the window.

    Attributes:
        queried_tokens: Known at the first admissions of requests; as vLLM counts them.
        hit_tokens: Of these, found.
        saved_tokens: Found at all admissions, those after a preemption too.
        evicted_blocks: Blocks handed out again that could have been found until then.
    """

    queried_tokens: int
    hit_tokens: int
    saved_tokens: int
    evicted_blocks: int

    @classmethod
    def of(cls, lane: Lane | PrefixLane) -> PrefixUse | None:
        """That of the run that has just ended in `lane`; None without a cache."""
        if not isinstance(lane, PrefixLane):
            return None
        return cls(*(int(lane.pool[0][one.name]) for one in fields(cls)))


@dataclass(frozen=True)
class Replication:
    """One replication, measured between 20 % and 80 % of its arrivals.

    Latency, TTFT and TPOT cover the requests that *arrived* in the window, whenever they complete.

    Attributes:
        arrived, completed: Requests in the window.
        unfinished: Requests that arrived in the window and had not ended when the run did.
        refused: Requests that arrived in the window and found the queue full.
        too_long: The same that never fit into memory.
        gave_up: The same whose client did not wait for the first token.
        stuck: Whether it ended as iterations without end completed nobody.
        window_s: Length of the window; of a finite job, its makespan.
        iterations: Of the whole run.
        tokens_computed: In the window, prompts included.
        tokens_recomputed: Of these, what evictions threw away, to be computed again.
        tokens_given_up: Of these, for requests that gave up.
        system_mean: Requests in the system, a time average over the whole run.
        duration_s: Of the whole run.
        sojourns_s: Time in the system of all requests that came, up to the end of the run.
        limited, met_limits: Requests of the window whose class has limits and that have ended, and
            of these those that completed within all of them, per class, then all, shape
            (classes + 1,).
        met_each: The same of those that met their limit of TTFT, TPOT and latency, or have none;
            shape (classes + 1, 3).
        kv_mean_tokens, residents_mean: Time averages over the window, idle time included.
        count, mean_s, sd_s: Of latency, TTFT, TPOT per class, then pooled; shape (classes + 1, 3).
        quantile_s: The same at QUANTILES, within 1 %, shape (classes + 1, 3, 3).
        gap_count, gap_mean_s, gap_max_s: Of the time between output tokens of a request, as the
            server emits them, stalls between evictions included; in the window.
        gap_quantile_s: The same at QUANTILES, within 1 %, shape (3,).
        path: Samples of the backlog over the whole run, columns as in `PATH_COLUMNS`.
        prefixes: What a cache of prefixes did; None without one.
    """

    arrived: int
    completed: int
    unfinished: int
    refused: int
    too_long: int
    gave_up: int
    stuck: bool
    window_s: float
    iterations: int
    busy_share: float
    evictions: int
    tokens_decoded: int
    tokens_lost: int
    tokens_computed: int
    tokens_recomputed: int
    tokens_given_up: int
    system_mean: float
    duration_s: float
    sojourns_s: float
    limited: Floats
    met_limits: Floats
    met_each: Floats
    kv_mean_tokens: float
    kv_max_tokens: int
    residents_mean: float
    count: Floats
    mean_s: Floats
    sd_s: Floats
    quantile_s: Floats
    gap_count: int
    gap_mean_s: float
    gap_max_s: float
    gap_quantile_s: Floats
    path: Floats
    prefixes: PrefixUse | None = None

    @property
    def completed_share(self) -> float:
        """Completions in the window ÷ arrivals in it."""
        return self.completed / self.arrived

    @property
    def late(self) -> Backlog:
        """The second half of the path."""
        return Backlog(self.path).late

    @property
    def collapsed(self) -> bool:
        """Whether the backlog grows while evictions throw away `COLLAPSE_SHARE` of the work.

        Throughput is then lost to the backlog itself (THEORY 6.4), which a plain overload, or a
        small limit on requests in service, does not do.
        """
        return behind(self) and self.late.lost_share() >= COLLAPSE_SHARE


def collect(lane: Lane) -> Replication:
    """Read the statistics of the run that has just ended in `lane`."""
    scalars = dict(zip(SCALARS.names or (), lane.scalars[0].item(), strict=True))
    window_s = float(scalars["window_end_s"] - scalars["window_start_s"])
    duration_s = float(scalars["clock_s"])
    sums = np.concatenate([lane.sums, lane.sums.sum(axis=0, keepdims=True)])
    limits, met_each, sums = sums[:, MET], sums[:, MET_EACH], sums[:, :MET]
    present = int(scalars["residents"] + scalars["waiting"])
    quantile_s = histogram_quantiles(lane.histogram)
    gaps = int(lane.histogram[0, GAP].sum())
    number = sums[..., 0]
    mean = _divide(sums[..., 1], number)
    variance = _divide(sums[..., 2] - number * mean**2, number - 1)
    return Replication(
        arrived=int(scalars["cohort_end"] - scalars["cohort_start"]),
        completed=int(scalars["completed"]),
        unfinished=int(scalars["cohort_left"]),
        refused=int(scalars["refused"]),
        too_long=int(scalars["too_long"]),
        gave_up=int(scalars["gave_up"]),
        stuck=bool(scalars["stuck"]),
        window_s=window_s,
        iterations=int(scalars["iterations"]),
        busy_share=_ratio(scalars["busy_s"], window_s),
        evictions=int(scalars["evictions"]),
        tokens_decoded=int(scalars["tokens_decoded"]),
        tokens_lost=int(scalars["tokens_lost"]),
        tokens_computed=int(scalars["tokens_computed"]),
        tokens_recomputed=int(scalars["tokens_recomputed"]),
        tokens_given_up=int(scalars["tokens_given_up"]),
        system_mean=_ratio(scalars["system_integral"], duration_s),
        duration_s=duration_s,
        sojourns_s=float(
            scalars["sojourn_s"] + present * duration_s - scalars["arrivals_present_s"]
        ),
        limited=limits[:, 0],
        met_limits=limits[:, 1],
        met_each=met_each,
        kv_mean_tokens=_ratio(scalars["kv_integral"], window_s),
        kv_max_tokens=int(scalars["kv_max_tokens"]),
        residents_mean=_ratio(scalars["resident_integral"], window_s),
        count=number,
        mean_s=mean,
        sd_s=np.sqrt(np.maximum(variance, 0.0)),
        quantile_s=quantile_s[:, :GAP],
        gap_count=gaps,
        gap_mean_s=_ratio(scalars["gap_sum_s"], gaps),
        gap_max_s=float(scalars["gap_max_s"]),
        gap_quantile_s=quantile_s[-1, GAP],
        path=lane.path[: scalars["path_rows"]].copy(),
        prefixes=PrefixUse.of(lane),
    )


def histogram_quantiles(histogram: NDArray[np.int32]) -> Floats:
    """Quantiles of log-spaced histograms.

    Args:
        histogram: Shape (classes, metrics, bins).

    Returns:
        The geometric middle of the bin in which each of QUANTILES falls, of each class, then of
        all, shape (classes + 1, metrics, 3); NaN for an empty histogram.
    """
    classes, metrics, _ = histogram.shape
    bins = np.full((classes + 1, metrics, len(QUANTILES)), np.nan)
    find_quantiles(histogram, np.array(QUANTILES), bins)
    middle: Floats = HISTOGRAM_LOWEST_S * np.power(HISTOGRAM_RATIO, bins + 0.5)
    return middle


def _divide(top: Floats, bottom: Floats) -> Floats:
    quotient = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=quotient, where=bottom > 0)
    return quotient


def _ratio(top: float, bottom: float) -> float:
    return float(top / bottom) if bottom > 0 else float("nan")


@dataclass(frozen=True)
class Interval:
    """A mean over replications and the half width of its confidence interval (Student's t).

    `half_width` is NaN where a single replication gives no interval.
    """

    mean: float
    half_width: float

    @property
    def low(self) -> float:
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        return self.mean + self.half_width


def interval(values: Sequence[float] | Floats, level: float = 0.95) -> Interval:
    """Mean over independent replications with its `level` confidence interval."""
    sample = np.asarray(values, dtype=float)
    return Interval(float(sample.mean()), half_width(sample, level))
