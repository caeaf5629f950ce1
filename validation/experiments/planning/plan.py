"""Which settings, which server and how many of them, for a load and what it promises."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server
from fluid.service_levels import promises, require_possible
from fluid.workload import Workload
from thresholds.checks import is_number, require_choice
from thresholds.limits import Limits
from thresholds.solvers.paced.solver import Paced
from thresholds.table import ThresholdTable
from validation.experiments.boundary_search import Budget
from validation.experiments.largest_rate import fluid_limit_per_s
from validation.experiments.planning.advice import Worth, compared, pared
from validation.experiments.planning.race import SATURATED, Course, race
from validation.experiments.planning.result import UNITS, Objective, Option, Plan
from validation.experiments.planning.space import (
    ENGINES,
    EngineSpace,
    Setting,
    defaults,
    settings_of,
)
from validation.experiments.planning.words import engine_config
from validation.experiments.slo.answer import first_guess
from validation.experiments.slo.rate import SloRate, slo_rate
from validation.simulator.metrics import Interval
from validation.simulator.model import model_of
from validation.simulator.runs import Runs

OBJECTIVES = ("goodput", "cost", "ttft")

FIRST_RUNS = Runs(2, 1_000)
"""Requests per run and the seed; replications are those of the race."""

_RACE_SHARE = 0.6
"""Of a server's seconds; checks and the slo-rate take the rest."""


def plan(
    load: Workload,
    servers: Server | Sequence[Server],
    *,
    objective: Objective = "goodput",
    costs: Mapping[str, float] | None = None,
    budget_s: float = 60.0,
    runs: Runs = FIRST_RUNS,
    on_done: Callable[[], None] | None = None,
) -> Plan:
    """Choose the settings of the engine, the server, and how many of them.

    For each server a race over the engine's settings (`validation.experiments.planning.race`) at
    the rate at which the best of them just keeps the service levels; at saturation where the load
    has none; at the load's own rate for the least TTFT. What wins is tried again on fresh arrivals
    without each of its flags in turn, and those that are worth nothing are left out. So is
    a server that cannot do what is asked, with the reason, where another can.

    Args:
        servers: Of the engine that each names, vLLM where it names none.
        objective: "goodput": most requests per second that attain their service levels; "cost":
            least cost of the replicas that keep them for the load; "ttft": least p99 TTFT at the
            load's rate.
        costs: Per hour, by the server's name; 1 unless told.
        budget_s: Seconds in all, after which no round is started.
        runs: Requests per run and the seed; the race chooses its replications.
        on_done: Called after each round.

    Raises:
        InputError: No server, a cost of one that is not there, a budget that is not positive, a
            request that a server cannot hold, service levels of means, or an objective that the
            load does not suit.
        InfeasibleError: No server can: service levels that no setting keeps at any rate, or the
            objective "ttft" at a rate that it cannot carry.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(report=fw.Requests(1.0, prompt=100, output=50))
    >>> server = fw.Server.named("engine-long-decode")
    >>> fw.plan(load, server, budget_s=0.01, runs=fw.Runs(2, 400)).best.replicas
    1
    """
    several = [servers] if isinstance(servers, Server) else list(servers)
    prices = dict(costs or {})
    _check(load, several, objective, prices, budget_s)
    clock = Budget(runs.requests, seconds=budget_s / len(several)).clock
    start_s = clock()
    found: list[Option] = []
    refused: dict[str, InfeasibleError] = {}
    for index, server in enumerate(several):
        end_s = start_s + budget_s * (index + 1) / len(several)
        cost = prices.get(server.name, 1.0) if prices or objective == "cost" else None
        seconds = max(end_s - clock(), 1e-9)
        try:
            found.append(
                _option_for(load, server, objective, cost, seconds, runs, on_done or _nothing)
            )
        except InfeasibleError as error:
            refused[server.name] = error
    if not found:
        raise next(iter(refused.values()))
    ranked = sorted(found, key=lambda one: _rank(one, objective))
    left_out = {name: str(error) for name, error in refused.items()}
    return Plan(load, objective, tuple(ranked), left_out)


def _check(
    load: Workload,
    servers: Sequence[Server],
    objective: Objective,
    costs: Mapping[str, float],
    budget_s: float,
) -> None:
    require_choice("objective", objective, OBJECTIVES, "one of " + ", ".join(OBJECTIVES))
    if not servers:
        raise InputError("servers", "none", "at least one server")
    names = [one.name for one in servers]
    for name in names:
        if names.count(name) > 1:
            raise InputError("servers", name, "servers with different names")
    for name, cost in costs.items():
        if name not in names:
            raise InputError("costs", name, "a name among " + ", ".join(names))
        if not (is_number(cost) and cost > 0):
            raise InputError("costs", cost, "a cost per hour > 0")
    if not (is_number(budget_s) and budget_s > 0):
        raise InputError("budget_s", budget_s, "seconds > 0")
    if objective == "cost" and not promises(load):
        raise InputError(
            "objective", objective, "goodput or ttft for a load without service levels"
        )
    for one in promises(load):
        if one.slo.quantile == "mean":
            allowed = "a share of the requests: goodput counts those that attain their levels"
            raise InputError("slo.quantile", "mean", allowed)


def _nothing() -> None:
    """Nobody watches."""


def _option_for(
    load: Workload,
    server: Server,
    objective: Objective,
    cost: float | None,
    seconds: float,
    runs: Runs,
    on_done: Callable[[], None],
) -> Option:
    space = ENGINES[server.engine or "vllm"]
    model = model_of(load, server)
    require_possible(load, server)
    settings = settings_of(space, load, server, model)
    limit_per_s = fluid_limit_per_s(load, server)
    if limit_per_s is None:
        raise InputError("server", server.name, "one that can hold the longest request")
    if objective == "ttft" and load.rate_per_s >= limit_per_s:
        raise InfeasibleError(
            f"{load.name} at {load.rate_per_s:.4g} requests/s on one {server.name}, which carries "
            f"{limit_per_s:.4g} at most",
            "arrival rate",
            "a lower --rate, or the objective cost or goodput, which count replicas",
            limit_per_s / load.rate_per_s,
        )
    asked = [float(one.slo.quantile) for one in promises(load)]
    watched: Literal["goodput", "ttft"] = "ttft" if objective == "ttft" else "goodput"
    course = Course(model, watched, max(asked, default=None), limit_per_s)
    start_per_s = load.rate_per_s
    if watched == "goodput":
        start_per_s = SATURATED * limit_per_s
        if asked:
            start_per_s = first_guess(load, server, space.default.label, limit_per_s)[0]
    budget = Budget(runs.requests, seconds=_RACE_SHARE * seconds)
    end_s = budget.clock() + seconds
    raced = race(course, settings, start_per_s, runs, budget, on_done)
    setting, gains = pared(
        course, raced.best[0].setting, space.default, runs, raced.rate_per_s, on_done
    )
    best, default, gain = compared(course, setting, space.default, runs, raced.rate_per_s)
    worth = _worth(setting, space, defaults(setting, model), gains)
    slo = None
    if asked and watched == "goodput":
        left_s = max(end_s - budget.clock(), 1e-9)
        slo = slo_rate(load, server, setting.configured(), budget_s=left_s)
    if slo is None and best.goodput_per_s == 0:
        raise InputError("requests", runs.requests, "more: nobody ends while it is measured")
    if watched == "ttft":
        carried_per_s = load.rate_per_s
    elif slo is not None:
        carried_per_s = slo.low_per_s or 0.0
    else:
        carried_per_s = best.goodput_per_s
    if carried_per_s <= 0:
        raise InfeasibleError(
            f"no rate is known to keep the service levels of {load.name} on {server.name}",
            "budget_s",
            "allow more seconds",
        )
    replicas = math.ceil(load.rate_per_s / carried_per_s - 1e-9)
    return Option(
        server=server,
        engine=space.engine,
        setting=setting,
        worth=worth,
        flags=engine_config(space.engine, worth, UNITS[objective]),
        best=best,
        default=default,
        gain=gain,
        raced=raced,
        slo=slo,
        carried_per_s=carried_per_s,
        replicas=replicas,
        cost=None if cost is None else cost * replicas,
        table=_table(load, server, space, setting, carried_per_s, slo),
    )


def _worth(
    setting: Setting, space: EngineSpace, usual: Mapping[str, float], gains: Mapping[str, Interval]
) -> tuple[Worth, ...]:
    values: dict[str, float | str] = dict(setting.values)
    before: dict[str, float | str] = dict(usual)
    values["policy"], before["policy"] = setting.policy, space.default.policy
    return tuple(Worth(name, values[name], before[name], one) for name, one in gains.items())


def _table(
    load: Workload,
    server: Server,
    space: EngineSpace,
    setting: Setting,
    carried_per_s: float,
    slo: SloRate | None,
) -> ThresholdTable | None:
    """The settings as a table that vLLM's scheduler class follows, at what a replica gets."""
    if space.engine != "vllm":
        return None
    values = dict(setting.values)
    seats = values.get(space.seats)
    limits = Limits(
        pace_per_iteration=values.get("pace"),
        cap_requests=None if seats is None else int(seats),
        watermark_fraction=values.get("watermark", 0.0),
    )
    replicas = math.ceil(load.rate_per_s / carried_per_s - 1e-9)
    each = load.at_rate(min(load.rate_per_s / replicas, 0.99 * carried_per_s))
    try:
        table = Paced(scheduler="vllm-v1").solve(each, server)
    except InfeasibleError:
        return None
    rate_per_s = None if slo is None else slo.low_per_s
    predicted = table.predicted.model_copy(update={"slo_rate_per_s": rate_per_s})
    return table.model_copy(update={"params": limits.params, "predicted": predicted})


def _rank(one: Option, objective: Objective) -> float:
    if objective == "cost":
        assert one.cost is not None
        return one.cost
    return one.best.ttft_p99_s if objective == "ttft" else -one.carried_per_s
