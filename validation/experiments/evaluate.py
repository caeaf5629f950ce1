"""The simulator behind `thresholds.evaluator.Evaluator`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fluid.server import Server
from fluid.workload import Workload
from thresholds.evaluator import Evaluation
from thresholds.fields import Interval, PolicyValidation, Scheduler
from thresholds.limits import Limits
from validation.experiments.compare import PolicyResult, compare, latency_difference
from validation.policies import POLICIES, ConfiguredPolicy
from validation.simulator.model import poisson_model

_NAMES = {
    "pace_per_iteration": "pace",
    "cap_requests": "cap",
    "watermark_fraction": "watermark",
}

_NO_CAP = 10**6


def restrained(scheduler: Scheduler, limits: Limits) -> ConfiguredPolicy:
    """The simulator's policy for a practical table's limits on top of a scheduler.

    vLLM's own cap on sequences is lifted: the table's cap is the one that counts.
    """
    values: dict[str, float | str] = {_NAMES[name]: value for name, value in limits.params.items()}
    if scheduler == "vllm-v1":
        values["max_num_seqs"] = _NO_CAP
    return POLICIES[scheduler].configure(values)


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
    results = compare(
        poisson_model(workload, server),
        [restrained(scheduler, one) for one in settings],
        replications=replications,
        requests=requests,
        seed=seed,
    )
    return [
        Evaluation(limits, one.completed_each_per_s, policy_validation(one, results[0]))
        for limits, one in zip(settings, results, strict=True)
    ]


def policy_validation(result: PolicyResult, own: PolicyResult | None = None) -> PolicyValidation:
    """A simulated result as it is written into a table.

    Args:
        own: Result of the table's own policy, where this is one beside it.
    """
    latency = None
    if result.latency_s is not None and result.latency_s.half_width is not None:
        latency = Interval(mean=result.latency_s.mean, half_width=result.latency_s.half_width)
    difference = None if own is None else latency_difference(own, result)
    if difference is not None and not math.isnan(difference.half_width):
        paired = Interval(mean=difference.mean, half_width=difference.half_width)
    else:
        paired = None
    return PolicyValidation.model_validate(
        {
            "policy": result.policy,
            "params": {name: _plain(value) for name, value in result.params.items()},
            "rate_per_s": result.rate_per_s,
            "verdict": result.verdict,
            "latency_s": latency,
            "completed_share": Interval(
                mean=result.completed_share,
                half_width=result.completed_share_half_width or 0.0,
            ),
            "evictions_per_request": result.evictions_per_request,
            "collapsed_share": result.collapsed_share,
            "latency_difference_s": paired,
        }
    )


def _plain(value: object) -> object:
    """A parameter as a table holds it; numbers also where the command line gave text."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
