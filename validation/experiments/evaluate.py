"""The simulator behind `thresholds.evaluator.Evaluator`, and its results as tables hold them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fluid.server import Server
from fluid.workload import Workload
from thresholds.evaluator import Evaluation
from thresholds.fields import Interval, PolicyValidation, Scheduler
from thresholds.limits import Limits
from validation.experiments.following import restrained
from validation.experiments.simulate import PolicyResult, latency_difference, simulate
from validation.simulator import metrics
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs


def simulate_settings(
    workload: Workload,
    server: Server,
    scheduler: Scheduler,
    settings: Sequence[Limits],
    *,
    replications: int,
    requests: int,
    seed: int,
) -> list[Evaluation]:
    """Simulate settings on the same Poisson arrivals; see `Evaluator`.

    Raises:
        InputError: The scheduler cannot run on the server (first-token convention).
    """
    policies = [restrained(scheduler, one) for one in settings]
    runs = Runs(replications, requests, seed)
    results = simulate(poisson_model(workload, server), policies, runs)
    return [
        Evaluation(limits, one.completed_each_per_s, policy_validation(one, results[0]))
        for limits, one in zip(settings, results, strict=True)
    ]


def policy_validation(result: PolicyResult, own: PolicyResult | None = None) -> PolicyValidation:
    """A simulated result as it is written into a table.

    Args:
        own: Result of the table's own policy, where this is one beside it.
    """
    difference = None if own is None else latency_difference(own, result)
    return PolicyValidation.model_validate(
        {
            "policy": result.policy,
            "params": {name: _plain(value) for name, value in result.params.items()},
            "rate_per_s": result.rate_per_s,
            "verdict": result.verdict,
            **_times(result),
            "completed_share": Interval(
                mean=result.completed_share,
                half_width=result.completed_share_half_width or 0.0,
            ),
            "evictions_per_request": result.evictions_per_request,
            "collapsed_share": result.collapsed_share,
            "latency_difference_s": None if difference is None else _of_metrics(difference),
        }
    )


def _times(result: PolicyResult) -> dict[str, Interval | float | None]:
    """Means with intervals and p99 of latency, TTFT and TPOT; None where a policy is unstable."""
    found: dict[str, Interval | float | None] = {}
    for name in ("latency", "ttft", "tpot"):
        spread = None if result.verdict == "unstable" else getattr(result, f"{name}_s")
        mean = None if spread is None else _interval(spread.mean, spread.half_width)
        found |= {f"{name}_s": mean, f"{name}_p99_s": spread and spread.p99}
    return found


def _of_metrics(found: metrics.Interval) -> Interval | None:
    return _interval(found.mean, None if math.isnan(found.half_width) else found.half_width)


def _interval(mean: float, half_width: float | None) -> Interval | None:
    """None where a single replication gives no interval."""
    return None if half_width is None else Interval(mean=mean, half_width=half_width)


def _plain(value: object) -> object:
    """A parameter as a table holds it."""
    return tuple(value) if isinstance(value, list) else value
