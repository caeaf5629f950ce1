"""Tables that hold for all rates that may be (THEORY 5.7), solved where that is hardest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server
from fluid.workload import Workload
from thresholds.export.engines import engine_flags
from thresholds.fields import Condition, Threshold
from thresholds.solvers.certificate import condition
from thresholds.solvers.solver import Solver
from thresholds.solvers.wait.batch import full_batch
from thresholds.table import ThresholdTable
from thresholds.uncertain.rates import RatePosterior, RateUncertainty

_HALVINGS = 10
_LEVELS = 7


def solve_uncertain(
    workload: Workload, server: Server, solver: Solver, uncertainty: RateUncertainty
) -> ThresholdTable:
    """The table of a solver that holds for every load that the rates may make.

    Its workload is the hardest of them, at which all its figures are.

    Raises:
        InputError: What the solver's conditions are at uncertain rates is not known: limits on
            means, prompts that differ or are weighted (Nested WAIT), a refinement on a simulator.
        InfeasibleError: No table holds for all of them; with the largest uncertainty for which one
            does, if the given rates themselves have one.
    """
    _require_known(workload, solver)
    try:
        return _solved(workload, server, solver, uncertainty)
    except InfeasibleError as error:
        size = _largest_size(workload, server, solver, uncertainty)
        if size is None:
            raise
        raise InfeasibleError(
            f"no table of policy {solver.policy} holds {uncertainty.words(workload)}",
            error.cause,
            f"{uncertainty.size_words(size)} has one; or lower the rates",
            error.max_scale,
        ) from None


def _require_known(workload: Workload, solver: Solver) -> None:
    limited = [one.name for one in workload.classes if one.slo and one.slo.quantile in solver.keeps]
    if limited:
        allowed = "none on means where rates are uncertain: waiting is longest at low rates"
        raise InputError("slo", f"limits on means ({limited[0]})", allowed)
    if getattr(solver, "budget_s", 0):
        allowed = "0 where rates are uncertain: a simulation shows one load"
        raise InputError("budget_s", getattr(solver, "budget_s", 0), allowed)


def _solved(
    workload: Workload, server: Server, solver: Solver, uncertainty: RateUncertainty
) -> ThresholdTable:
    if isinstance(uncertainty, RatePosterior) and solver.policy == "wait":
        table = _least_level(workload, server, solver, uncertainty)
    else:
        table = solver.solve(uncertainty.worst(solver.policy, workload, server), server)
    if solver.policy == "paced":
        table = _paced_for_any_mix(table, workload, uncertainty)
    words = (
        f"holds {uncertainty.words(workload)}; solved where that is hardest, at "
        f"{table.workload.rate_per_s:.4g} requests/s in all instead of {workload.rate_per_s:.4g}"
    )
    return table.model_copy(update={"notes": (words, *table.notes)})


def _paced_for_any_mix(
    table: ThresholdTable, workload: Workload, uncertainty: RateUncertainty
) -> ThresholdTable:
    """The pace that does not fill more than the memory whatever the mix: C/max Σ q_j m_j."""
    limits, capacity = table.limits, table.server.usable_kv_tokens
    if limits.pace_per_iteration is None:
        return table
    heaviest = uncertainty.largest_mean_memory(workload, table.server)
    share = min(1.0, capacity / heaviest / limits.pace_per_iteration)
    pace = share * limits.pace_per_iteration
    text = "memory of the pace under every mix: pace · max Σ q m ≤ C"
    paced = table.model_copy(
        update={
            "params": replace(limits, pace_per_iteration=pace).params,
            "thresholds": Threshold.many(
                {"name": one.name, "threshold": share * one.threshold} for one in table.thresholds
            ),
            "certificate": (*table.certificate, condition(text, pace * heaviest, capacity)),
        }
    )
    return paced.model_copy(update={"engine_flags": engine_flags(paced)})


def _least_level(
    workload: Workload, server: Server, solver: Solver, posterior: RatePosterior
) -> ThresholdTable:
    """Literal WAIT at the least common quantile whose thresholds hold with the probability.

    Whole thresholds leave room to spare: the quantile that suffices is lower than the one that
    would do for every n, and found by bisection with the probability of the thresholds themselves.
    """
    allowed = posterior.miss_probability
    high = (1 - allowed) ** (1 / len(workload.classes))
    low, level, best = 0.5, high, None
    for _ in range(_LEVELS):
        try:
            table = solver.solve(posterior.at_level("wait", workload, level), server)
        except InfeasibleError:
            high = level
        else:
            missed = miss_probability(table, workload, posterior)
            if missed <= allowed:
                high, best = level, (table, missed)
            else:
                low = level
        level = (low + high) / 2
    if best is None:
        table = solver.solve(posterior.worst("wait", workload, server), server)
        best = table, miss_probability(table, workload, posterior)
    table, missed = best
    return table.model_copy(update={"certificate": (*table.certificate, _chance(missed, allowed))})


def miss_probability(table: ThresholdTable, workload: Workload, posterior: RatePosterior) -> float:
    """1 − Π P(λ_j < n_j/ΔT(n)): that a drift condition of literal WAIT fails, exactly."""
    from scipy.special import gammainc

    n = np.array([float(one.threshold) for one in table.thresholds])
    time_s = float(full_batch(workload, table.server).iteration_time_s(n))
    holding = gammainc(posterior.shapes(workload), n / time_s * posterior.seconds(workload))
    return 1 - float(np.prod(holding))


def _chance(missed: float, allowed: float) -> Condition:
    return condition("probability that a drift condition fails ≤ ε", missed, allowed)


def _largest_size(
    workload: Workload, server: Server, solver: Solver, uncertainty: RateUncertainty
) -> float | None:
    """The largest uncertainty with a table, to a thousandth; None where none has one."""
    low, high = None, uncertainty.size
    least = 0.0 if not isinstance(uncertainty, RatePosterior) else 0.5
    try:
        _solved(workload, server, solver, uncertainty.of_size(least))
    except InfeasibleError:
        return None
    low = least
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        try:
            _solved(workload, server, solver, uncertainty.of_size(middle))
        except InfeasibleError:
            high = middle
        else:
            low = middle
    return low
