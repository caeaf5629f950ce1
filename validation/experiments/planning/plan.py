"""Which settings, which server and how many of them, for a load and what it promises."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from fluid.errors import InfeasibleError, InputError
from fluid.result import Block, Note, Result, Table, number
from fluid.server import Server
from fluid.service_levels import promises, require_possible
from fluid.workload import Workload
from thresholds.checks import is_number, require_choice
from thresholds.export.config import EngineConfig
from thresholds.limits import Limits
from thresholds.solvers.paced.solver import Paced
from thresholds.table import ThresholdTable
from validation.experiments.boundary_search import Budget
from validation.experiments.largest_rate import fluid_limit_per_s
from validation.experiments.planning.advice import Worth, compared, pared
from validation.experiments.planning.race import SATURATED, Course, Raced, Tried, race
from validation.experiments.planning.space import (
    ENGINES,
    EngineSpace,
    Setting,
    defaults,
    settings_of,
)
from validation.experiments.planning.words import change, engine_config, named
from validation.experiments.slo.answer import first_guess
from validation.experiments.slo.rate import SloRate, slo_rate
from validation.simulator.metrics import Interval
from validation.simulator.model import model_of
from validation.simulator.runs import Runs

if TYPE_CHECKING:
    from fluid.plots.style import Panels

Objective = Literal["goodput", "cost", "ttft"]
OBJECTIVES = ("goodput", "cost", "ttft")

FIRST_RUNS = Runs(2, 1_000)
"""Requests per run and the seed; replications are those of the race."""

_RACE_SHARE = 0.6
"""Of a server's seconds; checks and the slo-rate take the rest."""

_UNITS = {"goodput": "more goodput", "cost": "more goodput", "ttft": "less p99 TTFT"}


@dataclass(frozen=True, eq=False)
class Option:
    """The best settings found for one server.

    Attributes:
        setting: What is set beside the engine's defaults.
        worth: What each of these is worth.
        flags: The same for the engine.
        best, default: On fresh arrivals, at the same rate.
        gain: In the objective over the engine's defaults, a share, with its 95 % interval.
        slo: The largest rate that keeps the promises with these settings; None without promises,
            or where least TTFT is asked for.
        carried_per_s: What a replica carries: that rate, or what it completes when saturated.
        replicas: So many carry the load.
        cost: Of all of them, per hour; None where no cost was given.
        table: The settings as a table; None for engines that follow none.
    """

    server: Server
    engine: str
    setting: Setting
    worth: tuple[Worth, ...]
    flags: EngineConfig
    best: Tried
    default: Tried
    gain: Interval
    raced: Raced
    slo: SloRate | None
    carried_per_s: float
    replicas: int
    cost: float | None
    table: ThresholdTable | None


@dataclass(frozen=True, repr=False)
class Plan(Result):
    """One recommendation, with the others that were looked at behind it.

    Attributes:
        objective: "goodput", "cost" or "ttft".
        options: One per server, the recommended one first.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(report=fw.Requests(1.0, prompt=100, output=50))
    >>> server = fw.Server.named("engine-long-decode")
    >>> found = fw.plan(load, server, budget_s=0.01, runs=fw.Runs(2, 400))
    >>> found.best.engine, found.best.raced.finished
    ('vllm', False)
    """

    workload: Workload
    objective: Objective
    options: tuple[Option, ...]

    @property
    def best(self) -> Option:
        """The recommended one."""
        return self.options[0]

    @property
    def sentence(self) -> str:
        """The recommendation."""
        best = self.best
        what = f"{best.replicas} × {best.server.name}"
        if best.cost is not None:
            what += f" ({number(best.cost)} per hour)"
        if not best.worth:
            settings = "with the engine's own settings: none that was tried is measurably better"
        else:
            set_to = (f"{one.name}={_word(one.value)}" for one in best.worth)
            settings = "with " + ", ".join(set_to)
        carried = f"{number(best.carried_per_s)} requests/s each"
        return f"Take {what} {settings}; {carried} {self._carries}."

    @property
    def _carries(self) -> str:
        if self.best.slo is not None:
            return "keep the service levels (95 %)"
        return "when saturated, no service levels asked"

    @property
    def gain_sentence(self) -> str:
        """How much better than the engine's defaults."""
        best = self.best
        rate = number(best.best.offered_per_s)
        if not best.worth:
            return f"Compared at {rate} requests/s offered."
        return (
            f"{change(best.gain, _UNITS[self.objective])} than with the engine's own settings, at "
            f"{rate} requests/s offered (paired, 95 %, on arrivals that nothing was chosen by)."
        )

    def blocks(self) -> Iterator[Block]:
        yield self.sentence
        yield self.gain_sentence
        yield Table(
            f"{self.workload.name}: settings beside the engine's own",
            ("server", "settings", "goodput /s", "p99 TTFT s", "p99 TPOT s", "evictions /req"),
            tuple(self._rows()),
            left=(0, 1),
            spare=("evictions /req",),
        )
        if len(self.options) > 1:
            rows = [
                (one.server.name, number(one.carried_per_s), str(one.replicas), number(one.cost))
                for one in self.options
            ]
            yield Table(
                "Servers", ("server", "requests/s each", "replicas", "cost /h"), tuple(rows)
            )
        if self.best.slo is not None:
            yield self.best.slo.sentence
        yield self.best.flags.text.rstrip("\n")
        for one in self.options:
            if not one.raced.finished:
                yield Note(
                    f"{one.server.name}: the budget ended before the race; allow more seconds"
                )

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for one in self.options:
            shown = [(one.setting.label, one.best)]
            if one.worth:
                shown.append((f"{one.default.setting.label} (its own)", one.default))
            for label, found in shown:
                yield (
                    one.server.name,
                    label,
                    number(found.goodput_per_s),
                    number(_known(found.ttft_p99_s)),
                    number(_known(found.tpot_p99_s)),
                    number(found.evictions_per_request, 3),
                )

    def document(self) -> dict[str, Any]:
        """The recommendation, and each option."""
        return {
            "workload": self.workload.name,
            "objective": self.objective,
            "recommendation": self.sentence,
            "options": [_option(one) for one in self.options],
        }

    def frame(self) -> dict[str, list[Any]]:
        """A row for each setting of the recommended server that was tried, in its first round."""
        field = self.best.raced.field
        return {
            "setting": [one.setting.label for one in field],
            "offered_per_s": [one.offered_per_s for one in field],
            "goodput_per_s": [one.goodput_per_s for one in field],
            "ttft_p99_s": [_known(one.ttft_p99_s) for one in field],
            "tpot_p99_s": [_known(one.tpot_p99_s) for one in field],
            "evictions_per_request": [one.evictions_per_request for one in field],
        }

    def plot(self, ax: Panels | None = None) -> Panels:
        """Goodput against p99 TPOT and p99 TTFT over the settings tried, all at one rate.

        Args:
            ax: Two axes, side by side; those of a new figure where None.
        """
        from validation.experiments.planning.picture import draw_tried

        columns = self.frame()
        own = 0
        chosen = columns["setting"].index(self.best.setting.label)
        return draw_tried(
            {name: columns[name] for name in ("goodput_per_s", "tpot_p99_s", "ttft_p99_s")},
            {"the engine's own": own, "recommended": chosen},
            ax,
        )


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
    without each of its flags in turn, and those that are worth nothing are left out.

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
        InfeasibleError: Service levels that no setting keeps at any rate.

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
    start_s, found = clock(), []
    for index, server in enumerate(several):
        end_s = start_s + budget_s * (index + 1) / len(several)
        cost = prices.get(server.name, 1.0) if prices or objective == "cost" else None
        seconds = max(end_s - clock(), 1e-9)
        found.append(_option_for(load, server, objective, cost, seconds, runs, on_done or _nothing))
    return Plan(load, objective, tuple(sorted(found, key=lambda one: _rank(one, objective))))


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
    carried_per_s = best.goodput_per_s
    if slo is None and carried_per_s == 0:
        raise InputError("requests", runs.requests, "more: nobody ends while it is measured")
    if slo is not None:
        carried_per_s = slo.low_per_s or 0.0
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
        flags=engine_config(space.engine, worth, _UNITS[objective]),
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


def _option(one: Option) -> dict[str, Any]:
    return {
        "server": one.server.name,
        "engine": one.engine,
        "policy": one.setting.policy,
        "settings": named(dict(one.setting.values)),
        "worth": [
            {"name": w.name, "value": _json(w.value), "engine": _json(w.usual), **asdict(w.gain)}
            for w in one.worth
        ],
        "flags": one.flags.document(),
        "offered_per_s": one.best.offered_per_s,
        "goodput_per_s": one.best.goodput_per_s,
        "ttft_p99_s": _known(one.best.ttft_p99_s),
        "tpot_p99_s": _known(one.best.tpot_p99_s),
        "gain": {"mean": one.gain.mean, "half_width": _known(one.gain.half_width)},
        "slo_rate_per_s": one.slo and one.slo.low_per_s,
        "carried_per_s": one.carried_per_s,
        "replicas": one.replicas,
        "cost": one.cost,
        "tried": len(one.raced.field),
        "finished": one.raced.finished,
    }


def _json(value: float | str) -> float | str | None:
    return None if value == math.inf else value


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _word(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
