"""The largest rate at which a policy is stable, by bisection over simulated verdicts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from validation.experiments.store import Store
from validation.experiments.sweep import LOCAL, Configuration, Runner, sweep
from validation.policies import ConfiguredPolicy
from validation.simulator.model import Model

TOLERANCE = 0.005
"""Relative width of the final bracket."""

Search = Generator[float, bool, tuple[float | None, float | None]]
"""Asks whether a policy is stable at a rate, and ends with the bracket of its boundary."""

_WIDEN = 1.25
_MOST_WIDENINGS = 30


@dataclass(frozen=True)
class Capacity:
    """Result of a bisection.

    Attributes:
        largest_stable_rate_per_s: Highest rate with verdict "stable"; None if none was found.
        smallest_unstable_rate_per_s: Lowest rate tried above it ("unstable" or "undecided").
        simulations: Configurations that were needed.
    """

    policy: str
    largest_stable_rate_per_s: float | None
    smallest_unstable_rate_per_s: float | None
    simulations: int


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
    on_done: Callable[[], None] | None = None,
) -> list[Capacity]:
    """Bracket each boundary from `start_per_s` on (the fluid limit is a good start), then bisect.

    All rates see the same arrivals, stretched in time, so that verdicts differ by the rate alone.
    The policies advance together, one rate each at a time, so that a runner has work for all.

    Args:
        on_done: Called after each policy.
    """
    searches = [_search(start_per_s, tolerance) for _ in policies]
    asked = {index: next(search) for index, search in enumerate(searches)}
    simulations = [0] * len(policies)
    found: dict[int, Capacity] = {}
    while asked:
        rows = [
            Configuration(policies[index], rate_per_s, replications, requests, seed)
            for index, rate_per_s in asked.items()
        ]
        results = sweep(model, rows, store, device=device, runner=runner)
        for index, result in zip(list(asked), results, strict=True):
            simulations[index] += 1
            try:
                asked[index] = searches[index].send(result.verdict == "stable")
            except StopIteration as end:
                del asked[index]
                low, high = end.value
                found[index] = Capacity(policies[index].label, low, high, simulations[index])
                if on_done:
                    on_done()
    return [found[index] for index in range(len(policies))]


def _search(start_per_s: float, tolerance: float) -> Search:
    low, high = yield from _bracket(start_per_s)
    while low is not None and high is not None and high / low > 1 + tolerance:
        middle = (low * high) ** 0.5
        if (yield middle):
            low = middle
        else:
            high = middle
    return low, high


def _bracket(start_per_s: float) -> Search:
    """A stable rate and one above it that is not; None where widening finds no such rate."""
    if (yield start_per_s):
        low = start_per_s
        for _ in range(_MOST_WIDENINGS):
            if not (yield low * _WIDEN):
                return low, low * _WIDEN
            low *= _WIDEN
        return low, None
    high = start_per_s
    for _ in range(_MOST_WIDENINGS):
        if (yield high / _WIDEN):
            return high / _WIDEN, high
        high /= _WIDEN
    return None, high
