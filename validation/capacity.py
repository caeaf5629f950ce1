"""The largest rate at which a policy is stable, by bisection over simulated verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from validation.policies import ConfiguredPolicy
from validation.simulator.model import Model
from validation.sweep import Configuration, Store, sweep

TOLERANCE = 0.005
"""Relative width of the final bracket."""

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
    model: Model,
    policy: ConfiguredPolicy,
    start_per_s: float,
    *,
    replications: int = 20,
    requests: int = 20_000,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    store: Store | None = None,
    device: str = "cpu",
    on_done: Callable[[], None] | None = None,
) -> Capacity:
    """Bracket the boundary from `start_per_s` on (the fluid limit is a good start), then bisect.

    All rates see the same arrivals, stretched in time, so that verdicts differ by the rate alone.
    """
    tried = 0

    def stable(rate_per_s: float) -> bool:
        nonlocal tried
        tried += 1
        row = Configuration(policy, rate_per_s, replications, requests, seed)
        return sweep(model, [row], store, device=device, on_done=on_done)[0].verdict == "stable"

    low, high = _bracket(stable, start_per_s)
    while low is not None and high is not None and high / low > 1 + tolerance:
        middle = (low * high) ** 0.5
        if stable(middle):
            low = middle
        else:
            high = middle
    return Capacity(policy.label, low, high, tried)


def _bracket(
    stable: Callable[[float], bool], start_per_s: float
) -> tuple[float | None, float | None]:
    """A stable rate and one above it that is not; None where widening finds no such rate."""
    if stable(start_per_s):
        low = start_per_s
        for _ in range(_MOST_WIDENINGS):
            if not stable(low * _WIDEN):
                return low, low * _WIDEN
            low *= _WIDEN
        return low, None
    high = start_per_s
    for _ in range(_MOST_WIDENINGS):
        if stable(high / _WIDEN):
            return high / _WIDEN, high
        high /= _WIDEN
    return None, high
