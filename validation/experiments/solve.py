"""The threshold solvers, with the simulator at hand for those that refine on one."""

from __future__ import annotations

from collections.abc import Sequence

from fluid.server import Server
from fluid.workload import Workload
from thresholds.evaluator import Evaluation
from thresholds.fields import Scheduler
from thresholds.limits import Limits
from thresholds.loss import with_loss
from thresholds.schedule import Schedule
from thresholds.solve import solve as solve_with
from thresholds.solvers.solver import Solver
from thresholds.table import ThresholdTable
from thresholds.uncertain.rates import RateUncertainty


def solve(
    workload: Workload,
    server: Server,
    solver: Solver | None = None,
    *,
    overload: bool = False,
    loss: bool = False,
    uncertainty: RateUncertainty | None = None,
) -> ThresholdTable | Schedule:
    """Thresholds for a load: a table, or a `Schedule` where the workload has a rate profile.

    Args:
        solver: `Paced` (the practical form, which is taken unless told), `Wait`, `NestedWait` or
            `NestedCap`, with its options.
        overload: Where the load is above capacity, solve for the part of it that is worth most.
        loss: Also predict what admission loses without and with the table once memory has filled
            (THEORY 11); not for schedules.
        uncertainty: What the rates may be, if they are not known: a `RateBox`, a `RateMix`, or a
            `RatePosterior` for those of a recording. The table holds for all of it (THEORY 5.7).

    Raises:
        InputError: A request that does not fit into the cache, or an option that does not suit the
            load.
        InfeasibleError: The workload is unstable (THEORY 2.1–2.3), or no table of this policy
            satisfies its conditions; with the binding cause and the nearest feasible change.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(report=fw.Requests(2.4, prompt=512, output=1000))
    >>> table = fw.solve(load, fw.Server.named("paper-long-decode"))
    >>> round(table.limits.pace_per_iteration, 4)
    0.1352
    """
    found = solve_with(
        workload,
        server,
        solver,
        evaluator=_simulated,
        overload=overload,
        uncertainty=uncertainty,
    )
    return with_loss(found) if loss and isinstance(found, ThresholdTable) else found


def _simulated(
    workload: Workload,
    server: Server,
    scheduler: Scheduler,
    settings: Sequence[Limits],
    *,
    replications: int,
    requests: int,
    seed: int,
) -> list[Evaluation]:
    from validation.experiments.evaluate import simulate_settings  # numba is slow to import

    return simulate_settings(
        workload,
        server,
        scheduler,
        settings,
        replications=replications,
        requests=requests,
        seed=seed,
    )
