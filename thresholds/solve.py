"""The one entry point to all threshold solvers."""

from __future__ import annotations

import math
from typing import get_args

from fluid.errors import InfeasibleError, InputError
from fluid.steady.equilibrium import Equilibrium, equilibrium
from thresholds.export.engines import engine_flags
from thresholds.problem import Problem
from thresholds.solvers.common import rounded_down
from thresholds.solvers.registry import KEEPS_MEAN_LIMITS, OBJECTIVES, SOLVERS
from thresholds.table import Scheduler, ThresholdTable


def solve(problem: Problem) -> ThresholdTable:
    """Compute a threshold table.

    Raises:
        InputError: Unknown policy or objective, or a request that does not fit into the cache.
        InfeasibleError: The workload is unstable (THEORY 2.1–2.3), or no table of this policy
            satisfies its conditions; with the binding cause and the nearest feasible change.
    """
    if problem.policy not in SOLVERS:
        raise InputError("policy", problem.policy, "one of " + ", ".join(SOLVERS))
    objectives = OBJECTIVES[problem.policy]
    if problem.objective not in objectives:
        allowed = f"{' or '.join(objectives)}, for policy {problem.policy}"
        raise InputError("objective", problem.objective, allowed)
    _check_refinement(problem)
    found = equilibrium(problem.workload, problem.server)
    if not found.stable:
        raise _unstable(problem, found)
    table = SOLVERS[problem.policy](problem, found)
    notes = (*_slo_notes(problem), *table.notes)
    return table.model_copy(update={"notes": notes, "engine_flags": engine_flags(table)})


def _check_refinement(problem: Problem) -> None:
    """Only the practical form knows schedulers and can be refined."""
    if problem.scheduler not in get_args(Scheduler):
        raise InputError("scheduler", problem.scheduler, "one of " + ", ".join(get_args(Scheduler)))
    if problem.policy == "paced":
        return
    if problem.scheduler != "greedy":
        raise InputError("scheduler", problem.scheduler, "greedy, except for policy paced")
    if problem.budget_s:
        raise InputError("budget_s", problem.budget_s, "0, except for policy paced")


def _slo_notes(problem: Problem) -> tuple[str, ...]:
    """An objective that is not among the constraints must not look as if it were."""
    kept = ("mean",) if problem.policy in KEEPS_MEAN_LIMITS else ()
    names = [
        one.name
        for one in problem.workload.classes
        if one.slo is not None and one.slo.quantile not in kept
    ]
    if not names:
        return ()
    return (f"the slo of {', '.join(names)} is no constraint of this solver: check it by replay",)


def _unstable(problem: Problem, found: Equilibrium) -> InfeasibleError:
    nearest = f"multiply all rates by at most {rounded_down(found.max_scale)}"
    if found.kv_tokens is not None:
        block = problem.server.block_tokens
        needed = math.ceil(found.kv_tokens / block) * block
        nearest += f", or raise kv_capacity_tokens to at least {needed}"
    nearest += ", or admit a part of the load (--overload)"
    return InfeasibleError(
        f"workload {problem.workload.name} is unstable on server {problem.server.name} "
        f"(utilisation {found.utilisation:.3f})",
        found.binding,
        nearest,
        found.max_scale,
    )
