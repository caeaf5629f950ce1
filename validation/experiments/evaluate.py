"""The simulator behind `thresholds.evaluator.Evaluator`, and its results as tables hold them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fluid.server import Server
from fluid.workload import Workload
from thresholds import solve as solvers
from thresholds.evaluator import Evaluation
from thresholds.fields import Interval, PolicyValidation, Scheduler
from thresholds.limits import Limits
from thresholds.schedule import Schedule
from thresholds.solvers.solver import Solver
from thresholds.table import ThresholdTable
from validation.experiments.following import restrained
from validation.experiments.simulate import PolicyResult, latency_difference, simulate
from validation.simulator import metrics
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs


def solve(
    workload: Workload,
    server: Server,
    solver: Solver | None = None,
    *,
    overload: bool = False,
) -> ThresholdTable | Schedule:
    """Thresholds for a load, where solvers that refine do it on this simulator.

    Args:
        solver: `Paced` (the practical form, which is taken unless told), `Wait`, `NestedWait` or
            `NestedCap`, with its options.
        overload: Where the load is above capacity, solve for the part of it that is worth most.

    Returns:
        A table, or a schedule of tables where the workload has a rate profile.

    Raises:
        InputError: A request that does not fit into the cache, or an option that does not suit the
            load.
        InfeasibleError: The workload is unstable (THEORY 2.1–2.3), or no table of this policy
            satisfies its conditions; with the binding cause and the nearest feasible change.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, prompt=64, output=20))
    >>> fw.solve(load, fw.Server.named("paper-lmsys")).policy
    'paced'
    """
    evaluator = simulate_settings
    return solvers.solve(workload, server, solver, evaluator=evaluator, overload=overload)


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
    spread = result.latency_s
    difference = None if own is None else latency_difference(own, result)
    return PolicyValidation.model_validate(
        {
            "policy": result.policy,
            "params": {name: _plain(value) for name, value in result.params.items()},
            "rate_per_s": result.rate_per_s,
            "verdict": result.verdict,
            "latency_s": None if spread is None else _interval(spread.mean, spread.half_width),
            "completed_share": Interval(
                mean=result.completed_share,
                half_width=result.completed_share_half_width or 0.0,
            ),
            "evictions_per_request": result.evictions_per_request,
            "collapsed_share": result.collapsed_share,
            "latency_difference_s": None if difference is None else _of_metrics(difference),
        }
    )


def _of_metrics(found: metrics.Interval) -> Interval | None:
    return _interval(found.mean, None if math.isnan(found.half_width) else found.half_width)


def _interval(mean: float, half_width: float | None) -> Interval | None:
    """None where a single replication gives no interval."""
    return None if half_width is None else Interval(mean=mean, half_width=half_width)


def _plain(value: object) -> object:
    """A parameter as a table holds it."""
    return tuple(value) if isinstance(value, list) else value
