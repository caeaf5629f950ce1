"""The largest rate of a mix at which its service levels are kept under a scheduler, simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from fluid.errors import InfeasibleError, InputError
from fluid.result import Block, Note, Result, Table, number, percent
from fluid.server import Server
from fluid.service_levels import WORDS, Promise
from fluid.steady.latency.scheduler import default_scheduler
from fluid.workload import Workload
from validation.experiments.boundary_search import BUDGET_S, Budget
from validation.experiments.largest_rate import fluid_limit_per_s
from validation.experiments.slo.answer import (
    FIRST_RUNS,
    Answer,
    checked_promises,
    first_guess,
    named_levels,
)
from validation.experiments.slo.attained import attained, criteria
from validation.experiments.slo.levels import (
    COLUMNS,
    SPARE,
    Level,
    cells,
)
from validation.experiments.slo.search import LEAST_SHARE, TOLERANCE, Found, RootSearch
from validation.policies import PolicyLike, configured
from validation.simulator.arrivals import Arrivals
from validation.simulator.model import model_of
from validation.simulator.runs import Runs
from validation.simulator.traffic.traffic import Traffic

RELAXED = 1.1
"""Factor of a limit for what a promise costs."""

STABILITY = "stability"
"""What binds where the backlog grows before any limit is missed."""

_STEPS = (1.03, 1.06, 1.12, 1.24, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Relaxed:
    """What a limit costs: the largest rate with that limit 10 % higher.

    Attributes:
        name, limit, limit_s: Whose limit, which one, and as it is.
        gain: By how much the rate is higher, as a share.
    """

    name: str
    limit: str
    limit_s: float
    rate_per_s: float
    gain: float


@dataclass(frozen=True, repr=False)
class SloRate(Result):
    """The largest total rate of a mix that keeps its promises.

    Attributes:
        scheduler: With its parameters.
        rate_per_s: Where the promises are just kept, on average.
        low_per_s, high_per_s: They are kept at the lower and broken at the upper rate, by intervals
            of 95 %; None where the budget ended before such a rate was found.
        decided: Whether both lie within `tolerance` of the answer, and runs half as long say the
            same.
        binding, binding_limit: The class and the limit that are missed first; `STABILITY` where
            the backlog grows before that.
        levels: Each limit at the answer.
        relaxed: The largest rate with each limit relaxed alone.
        predicted_per_s: What the latency laws say; None where they say nothing.
        limit_per_s: The fluid limit of the mix, whatever the latencies.
        runs: The last ones.

    >>> import fluidwait as fw
    >>> slo = fw.Slo(ttft_s=0.5, quantile="p90")
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=1, slo=slo))
    >>> server = fw.Server.named("engine-long-decode")
    >>> found = fw.slo_rate(load, server, "greedy:cap=1", tolerance=0.05)
    >>> found.low_per_s < found.rate_per_s < found.high_per_s < found.limit_per_s
    True
    >>> found.binding, found.binding_limit
    ('chat', 'ttft_s')
    """

    workload: Workload
    server: Server
    scheduler: str
    rate_per_s: float
    low_per_s: float | None
    high_per_s: float | None
    decided: bool
    tolerance: float
    binding: str
    binding_limit: str
    levels: tuple[Level, ...]
    relaxed: tuple[Relaxed, ...]
    predicted_per_s: float | None
    limit_per_s: float
    runs: Runs
    simulations: int

    def blocks(self) -> Iterator[Block]:
        eased = {(one.name, one.limit): one for one in self.relaxed}
        rows = []
        for one in self.levels:
            at = eased.get((one.name, one.limit))
            more = "–" if at is None else f"{number(at.rate_per_s)} (+{percent(at.gain)})"
            rows.append((*cells(one)[:-1], more))
        yield Table(
            f"{self.workload.name} on {self.server.name} under {self.scheduler}, at "
            f"{number(self.rate_per_s)} /s",
            (*COLUMNS[:-1], f"/s if {percent(RELAXED - 1, 0)} more"),
            tuple(rows),
            left=(0, 1),
            spare=SPARE,
        )
        yield self.sentence
        law = "" if self.predicted_per_s is None else f"; laws say {number(self.predicted_per_s)}"
        yield (
            f"Fluid limit: {number(self.limit_per_s)} /s{law}. Last runs: "
            f"{self.runs.replications} × {self.runs.requests:,} requests."
        )
        if not self.decided:
            yield Note("the budget ended before the bracket was decided; allow more seconds")

    @property
    def sentence(self) -> str:
        """The answer with its bracket and what binds."""
        low, high = number(self.low_per_s), number(self.high_per_s)
        if self.binding == STABILITY:
            why = "above it the backlog grows, before a limit is missed"
        else:
            why = f"{WORDS[self.binding_limit]} of {self.binding} binds"
        return (
            f"Service levels are kept up to {number(self.rate_per_s)} requests/s "
            f"(kept at {low}, broken at {high}, 95 %): {why}."
        )

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "query": "slo-rate",
            "scheduler": self.scheduler,
            "value": self.rate_per_s,
            "unit": "requests/s",
            "today": self.workload.rate_per_s,
            "low_per_s": self.low_per_s,
            "high_per_s": self.high_per_s,
            "decided": self.decided,
            "tolerance": self.tolerance,
            "binding": {"class": self.binding, "limit": self.binding_limit},
            "levels": [asdict(one) for one in self.levels],
            "relaxed": [asdict(one) for one in self.relaxed],
            "predicted_per_s": self.predicted_per_s,
            "limit_per_s": self.limit_per_s,
            "runs": {"replications": self.runs.replications, "requests": self.runs.requests},
            "simulations": self.simulations,
        }

    def frame(self) -> dict[str, list[Any]]:
        """A row for each limit: what is asked, what was measured, what it costs."""
        eased = {(one.name, one.limit): one.rate_per_s for one in self.relaxed}
        return {
            "class": [one.name for one in self.levels],
            "limit": [one.limit for one in self.levels],
            "limit_s": [one.limit_s for one in self.levels],
            "mean_s": [one.mean_s for one in self.levels],
            "p99_s": [one.p99_s for one in self.levels],
            "share": [one.share for one in self.levels],
            "relaxed_rate_per_s": [eased.get((one.name, one.limit)) for one in self.levels],
        }


def slo_rate(
    load: Workload,
    server: Server,
    scheduler: PolicyLike | None = None,
    *,
    arrivals: Arrivals | str | None = None,
    traffic: Traffic | None = None,
    runs: Runs = FIRST_RUNS,
    tolerance: float = TOLERANCE,
    budget_s: float = BUDGET_S,
    on_done: Callable[[], None] | None = None,
) -> SloRate:
    """The largest total rate of the mix at which all service levels are kept.

    The latency laws give a first guess; then rates are simulated on the same arrivals, with runs
    as long as it takes (`validation.experiments.slo.search`).

    Args:
        scheduler: A policy of the simulator; that of the server's engine where None.
        arrivals: How the workload arrives; Poisson where None.
        traffic: What clients do, where the backlog may grow all the same.
        runs: The first ones.
        tolerance: Largest relative distance of the answer from either end of its bracket.
        budget_s: Seconds after which no longer runs are started: the bracket is then wider, and
            says so.
        on_done: Called after each rate.

    Raises:
        InputError: No service levels, a request that does not fit, a policy that cannot run, or
            traffic that holds the backlog down.
        InfeasibleError: A limit below what an empty server takes, or promises that are kept at no
            rate; with the least that is possible.

    >>> import fluidwait as fw
    >>> slo = fw.Slo(latency_s=2.0, quantile="mean")
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=50, slo=slo))
    >>> server = fw.Server.named("engine-long-decode")
    >>> found = fw.slo_rate(load, server, "greedy", tolerance=0.05)
    >>> found.decided, round(found.rate_per_s / found.limit_per_s, 1)
    (True, 0.8)
    """
    kept = checked_promises(load, server, traffic, budget_s)
    if not 0 < tolerance <= 0.2:
        raise InputError("tolerance", tolerance, "above 0, at most 0.2")
    (policy,) = configured(default_scheduler(server) if scheduler is None else scheduler)
    model = model_of(load, server, arrivals, traffic)
    limit_per_s = fluid_limit_per_s(load, server)
    assert limit_per_s is not None
    demanded = criteria(kept)

    def measure(rate_per_s: float, size: Runs) -> Answer:
        found = attained(model, policy, kept, rate_per_s, size, RELAXED)
        if on_done is not None:
            on_done()
        return Answer(found, demanded)

    guess_per_s, predicted_per_s = first_guess(load, server, policy.label, limit_per_s)
    search = RootSearch(
        measure, runs, limit_per_s, tolerance, Budget(runs.requests, seconds=budget_s)
    )
    found = search.find(guess_per_s)
    if found.rate_per_s is None:
        raise _never(load, server, policy.label, search, limit_per_s)
    answer, below = search.at(found.rate_per_s), search.at(found.low_per_s or found.rate_per_s)
    assert isinstance(answer, Answer)
    assert isinstance(below, Answer)
    binding, limit = _binding(search, found, below, kept)
    return SloRate(
        workload=load,
        server=server,
        scheduler=policy.label,
        rate_per_s=found.rate_per_s,
        low_per_s=found.low_per_s,
        high_per_s=found.high_per_s,
        decided=found.decided,
        tolerance=tolerance,
        binding=binding,
        binding_limit=limit,
        levels=named_levels(answer.found, load),
        relaxed=tuple(_relaxed(search, found, kept)),
        predicted_per_s=predicted_per_s,
        limit_per_s=limit_per_s,
        runs=found.runs,
        simulations=search.simulations,
    )


def _binding(
    search: RootSearch, found: Found, below: Answer, kept: tuple[Promise, ...]
) -> tuple[str, str]:
    above = None if found.high_per_s is None else search.at(found.high_per_s)
    grows = above is None or (isinstance(above, Answer) and above.found.grows)
    if found.high_per_s is not None and grows and below.worst < 0:
        return STABILITY, STABILITY
    promise, limit = below.missed_first
    return kept[promise].name, limit


def _relaxed(search: RootSearch, found: Found, kept: tuple[Promise, ...]) -> Iterator[Relaxed]:
    """Roots of the excess with one limit relaxed, on the rates and arrivals of the last runs."""
    assert found.rate_per_s is not None
    start = found.low_per_s or found.rate_per_s
    rates = [start, *(one for one in (found.high_per_s,) if one is not None)]
    rates += [found.rate_per_s * one for one in _STEPS]
    for number_of, promise in enumerate(kept):
        for limit, limit_s in promise.slo.limits_s.items():
            at = _first_root(search, rates, number_of, limit)
            rate_per_s = max(at, found.rate_per_s)
            gain = rate_per_s / found.rate_per_s - 1
            yield Relaxed(promise.name, limit, limit_s, rate_per_s, gain)


def _first_root(search: RootSearch, rates: list[float], promise: int, limit: str) -> float:
    low, below = rates[0], math.nan
    for rate_per_s in rates:
        answer = search.at(rate_per_s)
        excess = math.inf
        if isinstance(answer, Answer):
            excess = answer.relaxed(promise, limit)
        if excess > 0:
            if not math.isfinite(excess):
                return min(math.sqrt(low * rate_per_s), search.limit_per_s)
            share = -below / (excess - below) if below < 0 else 0.0
            return float(low * (rate_per_s / low) ** share)
        low, below = rate_per_s, excess
    return low


def _never(
    load: Workload, server: Server, scheduler: str, search: RootSearch, limit_per_s: float
) -> InfeasibleError:
    """The error of promises that are kept at no rate, with what is missed at next to none."""
    at = search.at(LEAST_SHARE * limit_per_s)
    assert isinstance(at, Answer)
    promise, limit = at.missed_first
    one = at.found.promises[promise]
    least_s = at.found.quantile_s(promise, limit)
    if one.slo.quantile == "mean":
        least_s = at.found.mean_s(promise, limit).mean
    word = WORDS[limit]
    return InfeasibleError(
        f"the service levels of {load.name} are kept at no rate on {server.name} under {scheduler}",
        f"{word} of {one.name}",
        f"at next to no load its {one.slo.words} is {least_s:.4g} s, {one.slo.limits_s[limit]:g} s "
        "asked",
    )
