"""The largest rate at which a policy is stable: the search of `boundary_search`, simulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from validation.experiments.boundary_search import BUDGET_S, TOLERANCE, Bracket, Budget, search
from validation.experiments.store import Store
from validation.experiments.sweep import LOCAL, Configuration, Runner, sweep
from validation.policies import ConfiguredPolicy
from validation.simulator.model import Model


@dataclass(frozen=True)
class Capacity:
    """Result of a search.

    Attributes:
        largest_stable_rate_per_s: Lower end of the bracket; None if no stable rate was found.
        smallest_unstable_rate_per_s: Its upper end; None if no unstable rate was found.
        simulations: Configurations that were needed.
        saturated_per_s: Throughput under a backlog; None where it did not settle.
        reason: What the bracket rests on, and whether a budget ended the search.
    """

    policy: str
    largest_stable_rate_per_s: float | None
    smallest_unstable_rate_per_s: float | None
    simulations: int
    saturated_per_s: float | None = None
    reason: str = ""


def find_capacity(
    model: Model, policy: ConfiguredPolicy, start_per_s: float, **settings: Any
) -> Capacity:
    """The capacity of one policy; see `find_capacities` for the settings."""
    return find_capacities(model, [policy], start_per_s, **settings)[0]


def find_capacities(
    model: Model,
    policies: Sequence[ConfiguredPolicy],
    start_per_s: float,
    *,
    replications: int = 20,
    requests: int = 20_000,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    store: Store | None = None,
    device: str = "cpu",
    runner: Runner = LOCAL,
    budget_s: float = BUDGET_S,
    on_done: Callable[[], None] | None = None,
) -> list[Capacity]:
    """Bracket each boundary, from `start_per_s` on (the fluid limit is a good start).

    All rates see the same arrivals, stretched in time, so that verdicts differ by the rate alone.
    The policies advance together, one rate each at a time, so that a runner has work for all.

    Args:
        requests: Arrivals of the shortest runs; they are extended as far as it takes.
        budget_s: Seconds after which no longer run is started.
        on_done: Called after each policy.
    """
    size = int(model.tape.size) or requests
    budget = Budget(size, fixed=model.tape.size > 0, seconds=budget_s)
    searches = [search(start_per_s, tolerance, budget) for _ in policies]
    asked = {index: next(search) for index, search in enumerate(searches)}
    simulations = [0] * len(policies)
    found: dict[int, Capacity] = {}
    while asked:
        rows = [
            Configuration(policies[index], one.rate_per_s, replications, one.requests, seed)
            for index, one in asked.items()
        ]
        results = sweep(model, rows, store, device=device, runner=runner)
        for index, result in zip(list(asked), results, strict=True):
            simulations[index] += 1
            try:
                asked[index] = searches[index].send(result)
            except StopIteration as end:
                del asked[index]
                found[index] = _capacity(policies[index].label, end.value, simulations[index])
                if on_done:
                    on_done()
    return [found[index] for index in range(len(policies))]


def _capacity(label: str, found: Bracket, simulations: int) -> Capacity:
    return Capacity(
        label,
        found.low_per_s,
        found.high_per_s,
        simulations,
        found.saturated_per_s,
        found.reason,
    )
