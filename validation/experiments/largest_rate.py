"""The largest rate at which a policy is stable: the search of `boundary_search`, simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fluid.result import Block, Result, number, percent
from fluid.server import Server
from fluid.steady.stability import stability
from fluid.traces.tape import Tape
from fluid.workload import Workload
from validation.experiments.boundary_search import MOST_TOKENS, TOLERANCE, Bracket, Budget, search
from validation.experiments.rows import LOCAL, Configuration, Runner, run_rows
from validation.experiments.store import Store, opened
from validation.policies import PolicyLike, configured
from validation.simulator.arrivals import Arrivals, as_arrivals
from validation.simulator.model import model_of
from validation.simulator.runs import Runs


@dataclass(frozen=True, repr=False)
class LargestRate(Result):
    """Result of a search.

    Attributes:
        largest_stable_rate_per_s: Lower end of the bracket, a nominal rate (`poisson-clipped`
            brings 5 % more); None if no stable rate was found.
        smallest_unstable_rate_per_s: Its upper end; None if no unstable rate was found.
        simulations: Configurations that were needed.
        saturated_per_s: Throughput under a backlog; None where it did not settle.
        reason: What the bracket rests on, and whether a budget ended the search.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> server = fw.Server.named("paper-long-decode")
    >>> found = fw.largest_stable_rate(load, server, "greedy:cap=4", runs=fw.Runs(2, 300))
    >>> found.policy, found.simulations > 2
    ('greedy:cap=4', True)
    """

    policy: str
    largest_stable_rate_per_s: float | None
    smallest_unstable_rate_per_s: float | None
    simulations: int
    saturated_per_s: float | None
    reason: str

    def blocks(self) -> Iterable[Block]:
        return [self.sentence()]

    def sentence(self, limit_per_s: float | None = None) -> str:
        """The bracket and what it rests on, also as a share of the fluid limit where known."""
        rate_per_s = self.largest_stable_rate_per_s
        top_per_s = self.smallest_unstable_rate_per_s
        top = "" if top_per_s is None else f" to {number(top_per_s)}"
        of_limit = rate_per_s / limit_per_s if limit_per_s and rate_per_s else None
        share = "" if of_limit is None else f", {percent(of_limit)} of that"
        return f"{self.policy}: stable up to {number(rate_per_s)}{top} /s{share} ({self.reason})."

    def document(self) -> dict[str, Any]:
        return asdict(self)


def fluid_limit_per_s(load: Workload | Tape, server: Server) -> float | None:
    """The largest total rate of the mix in the fluid model; None for a recording."""
    if isinstance(load, Tape):
        return None
    return stability(load, server).max_scale * load.rate_per_s


def largest_stable_rate(
    load: Workload | Tape,
    server: Server,
    policy: PolicyLike,
    *,
    arrivals: Arrivals | str | None = None,
    start_per_s: float | None = None,
    runs: Runs = Runs(20, 20_000),
    tolerance: float = TOLERANCE,
    store: Store | str | Path | None = None,
) -> LargestRate:
    """The largest rate at which one policy is stable; arguments as of `largest_stable_rates`.

    Raises:
        InputError: The policy cannot run.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> server = fw.Server.named("paper-long-decode")
    >>> runs = fw.Runs(replications=2, requests=300)
    >>> found = fw.largest_stable_rate(load, server, "greedy:cap=4", runs=runs)
    >>> found.largest_stable_rate_per_s < found.smallest_unstable_rate_per_s
    True
    """
    found = largest_stable_rates(
        load,
        server,
        [policy],
        arrivals=arrivals,
        start_per_s=start_per_s,
        runs=runs,
        tolerance=tolerance,
        store=store,
    )
    return found[0]


def largest_stable_rates(
    load: Workload | Tape,
    server: Server,
    policies: PolicyLike | Iterable[PolicyLike],
    *,
    arrivals: Arrivals | str | None = None,
    start_per_s: float | None = None,
    runs: Runs = Runs(20, 20_000),
    tolerance: float = TOLERANCE,
    store: Store | str | Path | None = None,
    runner: Runner = LOCAL,
    budget_s: float = math.inf,
    on_done: Callable[[], None] | None = None,
) -> list[LargestRate]:
    """Bracket the boundary of each policy, from `start_per_s` on.

    All rates see the same arrivals, stretched in time, so that verdicts differ by the rate alone.
    The policies advance together, one rate each at a time, so that a runner has work for all.

    Args:
        load: A workload, or a recording, which is played faster or slower.
        arrivals: How the workload arrives; Poisson where None.
        start_per_s: The fluid limit where None, or the rate of a recording.
        runs: The shortest ones; they are extended as far as it takes.
        tolerance: Largest relative distance of either end of the bracket from the boundary.
        store: Folder that keeps finished rows; those that it holds are not run again.
        runner: Where configurations run; the results do not depend on it.
        budget_s: Seconds after which no longer run is started; without, tokens are counted
            (`MOST_TOKENS`), so that the answer does not depend on the machine.
        on_done: Called after each policy.

    Raises:
        InputError: A policy that cannot run.
        ClusterError: The runner lost its cluster; the rows so far are in the store.
    """
    chosen = configured(policies)
    model = model_of(load, server, arrivals)
    start_per_s = start_per_s or fluid_limit_per_s(load, server) or model.rate_per_s
    size = int(model.tape.size) or runs.requests
    rate_factor = as_arrivals(arrivals).rate_factor
    searches = []
    for _ in chosen:
        budget = Budget(size, model.tape.size > 0, _most_requests(load, runs), budget_s)
        searches.append(search(start_per_s, tolerance, budget, rate_factor))
    asked = {index: next(search) for index, search in enumerate(searches)}
    simulations = [0] * len(chosen)
    found: dict[int, LargestRate] = {}
    with opened(store) as rows:
        while asked:
            configurations = [
                Configuration(chosen[index], one.rate_per_s, replace(runs, requests=one.requests))
                for index, one in asked.items()
            ]
            results = run_rows(model, configurations, rows, runner=runner)
            for index, result in zip(list(asked), results, strict=True):
                simulations[index] += 1
                try:
                    asked[index] = searches[index].send(result)
                except StopIteration as end:
                    del asked[index]
                    found[index] = _found(chosen[index].label, end.value, simulations[index])
                    if on_done:
                        on_done()
    return [found[index] for index in range(len(chosen))]


def _most_requests(load: Workload | Tape, runs: Runs) -> float:
    """Per replication, such that all of them decode so many tokens together."""
    if isinstance(load, Tape):
        return math.inf  # which has one length
    outputs = [one.decode_tokens for one in load.classes]
    mean = float(np.average(outputs, weights=load.rates_per_s))
    return MOST_TOKENS / (mean * runs.replications)


def _found(label: str, bracket: Bracket, simulations: int) -> LargestRate:
    return LargestRate(
        label,
        bracket.low_per_s,
        bracket.high_per_s,
        simulations,
        bracket.saturated_per_s,
        bracket.reason,
    )
