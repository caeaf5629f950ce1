"""Search for a policy's largest stable rate whose answer does not depend on the length of a run.

A server that is offered far more than it can carry completes what it can: its *throughput at
saturation*. Below that rate every backlog is worked off, so that the policy is stable. Above it a
backlog, once there, grows for ever; only a policy that can collapse (THEORY 6.4) may look stable
there for a while, which one run a little above the bracket finds out. Runs are doubled until the
throughput is known to the tolerance, and verdicts that are "undecided" until they are not; a policy
that can collapse is called stable only after the longest runs, as collapse is a matter of time.
Where the budget ends first, the bracket stays as wide as it is, or says how long its runs were.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np

from validation.experiments.simulate import PolicyResult
from validation.simulator.metrics import interval

TOLERANCE = 0.005
"""Largest relative distance of either end of the bracket from the boundary."""

OVERLOAD = 3.0
"""Offered rate ÷ throughput where it is measured at saturation."""

LEAST_REQUESTS, MOST_REQUESTS = 10_000, 160_000
"""Arrivals per run, at first and at the most."""

MOST_TOKENS = 3e10
"""Decoded in all runs of a search, unless told: a minute or two of two cores at 20 residents. It is
counted, not timed, so that the answer is the same on every machine."""

_ABOVE = 1.05
_WIDEN = 1.25
_MOST_WIDENINGS = 30


@dataclass(frozen=True)
class Question:
    """A rate to simulate, with so many arrivals per run."""

    rate_per_s: float
    requests: int


@dataclass(frozen=True)
class Bracket:
    """Where the boundary lies.

    Attributes:
        low_per_s: Largest rate known to be stable; None where none was found.
        high_per_s: Smallest rate above it known not to be; None where none was found.
        saturated_per_s: Throughput under a backlog; None where it did not settle.
        reason: What the bracket rests on, in one sentence.
    """

    low_per_s: float | None
    high_per_s: float | None
    saturated_per_s: float | None
    reason: str


Search = Generator[Question, PolicyResult, Bracket]
"""Asks for simulations and ends with a bracket."""


@dataclass
class Budget:
    """What one search may use.

    Attributes:
        requests: Per run, at first.
        fixed: Whether runs have one length, as on a recorded tape.
        most_requests: Per replication in all runs; no longer run is started beyond it.
        seconds: After which no longer run is started either: the answer depends on the machine.
    """

    requests: int
    fixed: bool = False
    most_requests: float = math.inf
    seconds: float = math.inf
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.end_s = self.clock() + self.seconds
        self._used = 0

    @property
    def first(self) -> int:
        """Arrivals of the first run of a question."""
        return self.requests if self.fixed else max(self.requests, LEAST_REQUESTS)

    def longer(self, requests: int) -> int | None:
        """Arrivals of the run after one of so many; None where the budget is spent."""
        self._used += requests
        spent = self._used + 2 * requests > self.most_requests or self.clock() > self.end_s
        return None if self.fixed or 2 * requests > MOST_REQUESTS or spent else 2 * requests


def search(
    start_per_s: float, tolerance: float, budget: Budget, rate_factor: float = 1.0
) -> Search:
    """Bracket the boundary from throughput at saturation, else from verdicts alone.

    Args:
        rate_factor: Requests that arrive ÷ offered rate. The bracket is one of offered rates,
            throughput one of requests.
    """
    found = yield from _saturated(start_per_s, tolerance, budget)
    if found is None:
        return (yield from _by_verdicts(start_per_s, None, tolerance, budget, None))
    rate_per_s, half_width = found
    offered_per_s = rate_per_s / rate_factor
    low, high = offered_per_s * (1 - half_width), offered_per_s * (1 + half_width)
    above, _ = yield from _decide(high * _ABOVE, budget)
    if above == "unstable":
        return Bracket(low, high, rate_per_s, "throughput under a backlog, and growth above it")
    if above == "undecided":
        reason = "throughput under a backlog; the budget ended before growth above it was seen"
        return Bracket(low, high, rate_per_s, reason)
    stable = high * _ABOVE
    return (yield from _by_verdicts(stable * _WIDEN, stable, tolerance, budget, rate_per_s))


def _saturated(
    start_per_s: float, tolerance: float, budget: Budget
) -> Generator[Question, PolicyResult, tuple[float, float] | None]:
    """Completions per second under a growing backlog, and its relative error.

    Runs double until twice the length changes the figure by less than the error that is allowed.
    """
    allowed = tolerance / 2
    offered, requests, before = OVERLOAD * start_per_s, budget.first, math.inf
    while True:
        result = yield Question(offered, requests)
        each = interval(result.completed_each_per_s, level=0.95)
        if each.mean > offered / 2:  # The start was too low: not saturated.
            offered *= OVERLOAD
            continue
        if each.mean <= 0:
            return None
        spread = 0.0 if math.isnan(each.half_width) else each.half_width / each.mean
        error = max(spread, abs(each.mean - before) / each.mean)
        if error <= allowed:
            return each.mean, tolerance
        longer = budget.longer(requests)
        if longer is None:
            return (each.mean, error) if error < 0.1 else None
        before, requests = each.mean, longer


def _decide(
    rate_per_s: float, budget: Budget, *, collapses: bool = False
) -> Generator[Question, PolicyResult, tuple[str, int]]:
    """The verdict at a rate, with runs as long as it takes, and how long they were.

    Args:
        collapses: Whether "stable" counts after the longest runs only.
    """
    requests = budget.first
    while True:
        result = yield Question(rate_per_s, requests)
        open_words = ("undecided", "stable") if collapses else ("undecided",)
        longer = budget.longer(requests)
        if result.verdict not in open_words or longer is None:
            return result.verdict, requests
        requests = longer


def _by_verdicts(
    start_per_s: float,
    low: float | None,
    tolerance: float,
    budget: Budget,
    saturated_per_s: float | None,
) -> Search:
    """Widen from the start, above `low` where that is known, then bisect.

    A rate that stays undecided ends it.
    """
    high, reason, length = None, "", 0
    collapses = saturated_per_s is not None
    rate_per_s = start_per_s
    for _ in range(_MOST_WIDENINGS):
        word, requests = yield from _decide(rate_per_s, budget, collapses=collapses)
        if word == "stable":
            low, length = rate_per_s, requests
        elif word == "unstable":
            high = rate_per_s
        if low is not None and high is not None:
            break
        up = word == "stable" or (word == "undecided" and low is not None)
        rate_per_s *= _WIDEN if up else 1 / _WIDEN
    while low is not None and high is not None and high / low > 1 + 2 * tolerance:
        middle = float(np.sqrt(low * high))
        word, requests = yield from _decide(middle, budget, collapses=collapses)
        if word == "undecided":
            reason = "; nearer to it the budget ended undecided"
            break
        if word == "stable":
            low, length = middle, requests
        else:
            high = middle
    known = "verdicts on both sides"
    if saturated_per_s is not None:
        known += f"; it can collapse, and then completes {saturated_per_s:.3g} /s only"
        if length:
            known += f"; stable for runs of {length:,} requests"
    return Bracket(low, high, saturated_per_s, known + reason)
