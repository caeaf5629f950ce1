"""Runs one replication again and keeps its path: what pictures show of an experiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from validation.experiments.paths import RunPath, WatchedRun, counted, thinned
from validation.experiments.simulate import Sample
from validation.policies import ConfiguredPolicy
from validation.simulator.cpu import Job, SamplePath, run_traced
from validation.simulator.metrics import Replication
from validation.simulator.model import Model
from validation.simulator.window import WINDOW_END


def watch_median(model: Model, samples: Sequence[Sample], seed: int) -> WatchedRun:
    """The replication in which the first policy beside the first one did as well as in the median.

    A replication says how many iterations it had, so that each policy runs once more only.
    """
    replication = median_replication(samples[min(1, len(samples) - 1)].replications)
    jobs = [Job(one.policy, replication, seed, one.rate_scale) for one in samples]
    iterations = [one.replications[replication].iterations for one in samples]
    return _watched(model, jobs, samples[0].requests, iterations)


def watch(
    model: Model,
    policies: Sequence[ConfiguredPolicy],
    replication: int,
    *,
    requests: int,
    seed: int,
    rate_per_s: float,
) -> WatchedRun:
    """A replication of a given number."""
    scale = model.rate_scale(rate_per_s)
    jobs = [Job(policy, replication, seed, scale) for policy in policies]
    return _watched(model, jobs, requests, [None] * len(jobs))


def median_replication(replications: Sequence[Replication]) -> int:
    """Number of the one whose completed share is the median."""
    shares = [one.completed_share for one in replications]
    return int(np.argsort(shares)[len(shares) // 2])


def _watched(
    model: Model, jobs: Sequence[Job], requests: int, iterations: Sequence[int | None]
) -> WatchedRun:
    traces = [
        run_traced(model, job, requests, known) for job, known in zip(jobs, iterations, strict=True)
    ]
    arrived_at_s = traces[0].arrived_at_s
    if model.constants[0]["whole_run"]:
        end_s = max(float(np.nanmax(one.completed_at_s)) for one in traces)
    else:
        end_s = float(arrived_at_s[int(WINDOW_END * len(arrived_at_s))])
    capacity_tokens = float(model.constants[0]["kv_capacity_tokens"])
    return WatchedRun(
        jobs[0].replication,
        end_s,
        *counted(arrived_at_s, end_s),
        tuple(_path(one, end_s, capacity_tokens) for one in traces),
    )


def _path(trace: SamplePath, end_s: float, capacity_tokens: float) -> RunPath:
    shown = trace.series[trace.series[:, 0] <= end_s]
    clock_s, held, _, waiting = shown.T
    done_at_s = trace.completed_at_s[np.isfinite(trace.completed_at_s)]
    return RunPath(
        thinned(clock_s),
        thinned(waiting),
        thinned(held / capacity_tokens),
        *counted(done_at_s, end_s),
    )
