"""Simulated means, quantiles and spreads with standard errors, to hold predictions against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.latency_cases import LatencyCase
from validation.policies import parse_policy
from validation.simulator.cpu import Job, run_reading
from validation.simulator.metrics import Replication, collect
from validation.simulator.model import poisson_model
from validation.simulator.state import Lane

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Simulated:
    """Averages over replications; arrays as in `Replication`, classes first, then pooled.

    Attributes:
        mean_s, error_s: Of latency, TTFT, TPOT, and the standard errors, shape (classes + 1, 3).
        quantile_s: p50, p90, p99, shape (classes + 1, 3, 3).
        iteration_s, kv_tokens: Mean and standard deviation over iterations.
    """

    mean_s: Floats
    error_s: Floats
    quantile_s: Floats
    iteration_s: tuple[float, float]
    kv_tokens: tuple[float, float]
    evictions_per_request: float
    busy_share: float
    completed_share: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in vars(self).items()
        }

    @classmethod
    def of(cls, document: dict[str, Any]) -> Simulated:
        """The inverse of `as_dict`."""
        arrays = {"mean_s", "error_s", "quantile_s"}
        return cls(**{k: np.array(v) if k in arrays else v for k, v in document.items()})


def simulated(
    case: LatencyCase,
    policy: str,
    replications: int,
    requests: int,
    threads: int = 1,
    seed: int = 7,
) -> Simulated:
    """Run a policy such as ``greedy`` or ``vllm-v1`` on the case."""
    model = poisson_model(case.workload, case.server)
    chosen = parse_policy(policy)
    jobs = [Job(chosen, one, seed) for one in range(replications)]
    read = run_reading(model, jobs, requests, _read, series_rows=1_000_000, threads=threads)
    runs = [one for one, _ in read]
    means = np.array([one.mean_s for one in runs])
    spread = np.mean([series for _, series in read], axis=0)
    return Simulated(
        mean_s=means.mean(axis=0),
        error_s=means.std(axis=0, ddof=1) / np.sqrt(replications),
        quantile_s=np.mean([one.quantile_s for one in runs], axis=0),
        iteration_s=_mean_sd(spread[0]),
        kv_tokens=_mean_sd(spread[1]),
        evictions_per_request=float(np.mean([one.evictions / one.arrived for one in runs])),
        busy_share=float(np.mean([one.busy_share for one in runs])),
        completed_share=float(np.mean([one.completed_share for one in runs])),
    )


def _read(lane: Lane) -> tuple[Replication, Floats]:
    """The replication, and first two moments of iteration times and of KV, shape (2, 2)."""
    rows = min(int(lane.scalars[0]["iterations"]), len(lane.series))
    clock_s, held = lane.series[rows // 5 : rows * 4 // 5, :2].T
    moments = [[one.mean(), (one**2).mean()] for one in (np.diff(clock_s), held)]
    return collect(lane), np.array(moments)


def _mean_sd(moments: Floats) -> tuple[float, float]:
    mean, square = moments
    return float(mean), float(np.sqrt(max(square - mean**2, 0.0)))
