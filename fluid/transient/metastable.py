"""Metastability of greedy admission: recovery from a burst, tipping bursts, the two equilibria.

Below its limit a server has the equilibrium of THEORY 2.2. Under greedy admission with eviction it
may have a second state, the *collapsed cycle*: generations of requests that were admitted together
grow together, overflow the memory and evict each other, so that less than the arrivals is completed
and the backlog never clears (THEORY 6.4). Which of the two holds depends on the past: a burst tips
the server. Everything here follows from `fluid.transient.path`, without simulation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.errors import InputError
from fluid.result import Block, Result, Table, number
from fluid.server import Server
from fluid.steady.equilibrium import Equilibrium, equilibrium
from fluid.transient.admission import Admission
from fluid.transient.inflow import Burst
from fluid.transient.path import simulate_fluid
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

_EVERY = 10
"""Iterations per row: below a second, against holds of minutes."""


@dataclass(frozen=True)
class Criterion:
    """When a path has recovered from a burst: the same words for the fluid and for simulation.

    It has recovered at the first time from which on no more than `backlog_requests` wait after
    admission for `hold_s` in a row, if that time comes within `horizon_s` of the burst; else never.
    The hold must outlast a service time: a burst that memory swallows at once does its harm only
    when it has grown.

    Raises:
        InputError: A value out of range.
    """

    horizon_s: float
    hold_s: float
    backlog_requests: float = 10.0

    def __post_init__(self) -> None:
        for field in ("horizon_s", "hold_s", "backlog_requests"):
            value = getattr(self, field)
            if not 0 < value < math.inf:
                raise InputError(field, value, "a positive finite number")

    def recovery_time_s(self, time_s: Floats, waiting: Floats, burst_s: float) -> float | None:
        """Seconds from the burst to the recovery of a path; None if it never comes.

        Args:
            time_s: Of a path that reaches to `burst_s + horizon_s + hold_s`, shape (rows,).
            waiting: Requests waiting then, alike.

        Raises:
            InputError: The path ends before that.
        """
        end_s = burst_s + self.horizon_s + self.hold_s
        if time_s[-1] < end_s:
            raise InputError("time_s", float(time_s[-1]), f"a path up to {end_s:g} s")
        since = (time_s >= burst_s) & (time_s <= end_s)
        busy_s = time_s[since & (waiting > self.backlog_requests)]
        # Quiet spells start at the burst and after each busy row; they end at the next one.
        starts = np.concatenate([[burst_s], busy_s])
        long = np.diff(starts, append=end_s) >= self.hold_s
        if not long.any():
            return None
        return float(starts[np.argmax(long)] - burst_s)


def recovery_time_s(
    workload: Workload,
    server: Server,
    burst_requests: float,
    criterion: Criterion,
    rule: Admission | None = None,
) -> float | None:
    """Seconds that the fluid needs to recover from a burst on top of its equilibrium.

    Returns:
        None if it never recovers within the horizon: the server has tipped.

    Raises:
        InfeasibleError: There is no equilibrium at these rates.
    """
    path = simulate_fluid(
        workload,
        server,
        horizon_s=criterion.horizon_s + criterion.hold_s,
        rule=rule,
        bursts=[Burst(0.0, burst_requests)],
        start="equilibrium",
        every=_EVERY,
    )
    return criterion.recovery_time_s(path.time_s, path.waiting, 0.0)


@dataclass(frozen=True, repr=False, eq=False)
class RecoveryMap(Result):
    """How long the fluid needs to recover, over total rate × burst.

    Attributes:
        rates_per_s, burst_requests: Shapes (rates,) and (bursts,).
        recovery_s: NaN for never, shape (rates, bursts).
        horizon_s: Of the criterion: "never" is not within so many seconds.
    """

    workload: Workload
    server: Server
    rates_per_s: Floats
    burst_requests: Floats
    recovery_s: Floats
    horizon_s: float

    def plot(
        self, ax: Axes | None = None, *, simulated_never: NDArray[np.float64] | None = None
    ) -> Axes:
        """Recovery time as colour up to the horizon, with one of its own for later or never.

        Args:
            simulated_never: Share of simulated paths that never recover, shape (rates, bursts),
                drawn as circles.
        """
        from fluid.plots.transient import plot_recovery_map

        return plot_recovery_map(
            ax,
            self.rates_per_s,
            self.burst_requests,
            self.recovery_s,
            self.horizon_s,
            simulated_never,
        )

    def frame(self) -> dict[str, Floats]:
        """Columns, a row for each pair of rate and burst."""
        rates, bursts = np.meshgrid(self.rates_per_s, self.burst_requests, indexing="ij")
        return {
            "rate_per_s": rates.ravel(),
            "burst_requests": bursts.ravel(),
            "recovery_s": self.recovery_s.ravel(),
        }

    def blocks(self) -> Iterator[Block]:
        yield Table(
            f"Seconds until {self.workload.name} on {self.server.name} has recovered, by burst",
            ("rate /s", *map(number, self.burst_requests.tolist())),
            tuple(
                (number(rate), *("never" if math.isnan(one) else number(one) for one in row))
                for rate, row in zip(
                    self.rates_per_s.tolist(), self.recovery_s.tolist(), strict=True
                )
            ),
        )
        never = int(np.isnan(self.recovery_s).sum())
        yield (
            f"Never, within {number(self.horizon_s)} s: {never} of {self.recovery_s.size} pairs of "
            "rate and burst."
        )

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "rates_per_s": self.rates_per_s.tolist(),
            "burst_requests": self.burst_requests.tolist(),
            "horizon_s": self.horizon_s,
            "recovery_s": [
                [None if math.isnan(one) else one for one in row]
                for row in self.recovery_s.tolist()
            ],
        }


def recovery_map(
    workload: Workload,
    server: Server,
    rates_per_s: ArrayLike,
    burst_requests: ArrayLike,
    criterion: Criterion,
    rule: Admission | None = None,
    threads: int | None = None,
) -> RecoveryMap:
    """Recovery times over total rate × burst (THEORY 6.4)."""
    rates, bursts = (np.asarray(one, dtype=float) for one in (rates_per_s, burst_requests))

    def one(cell: tuple[float, float]) -> float:
        rate, burst = cell
        found = recovery_time_s(workload.at_rate(rate), server, burst, criterion, rule)
        return math.nan if found is None else found

    cells = [(rate, burst) for rate in rates.tolist() for burst in bursts.tolist()]
    with ThreadPoolExecutor(threads) as pool:
        times_s = np.array(list(pool.map(one, cells))).reshape(len(rates), len(bursts))
    return RecoveryMap(workload, server, rates, bursts, times_s, criterion.horizon_s)


def tipping_burst(
    workload: Workload,
    server: Server,
    criterion: Criterion,
    rule: Admission | None = None,
    largest: float = 1000.0,
    resolution: float = 1.0,
) -> float | None:
    """Smallest burst from which the fluid never recovers, by bisection.

    A larger burst is taken to be no easier to recover from.

    Returns:
        A burst that tips the server, at most `resolution` above one that does not (or above
        nothing, if the server does not hold even without a burst); None if even `largest` does not
        tip it.

    Raises:
        InputError: `largest` or `resolution` is not positive.
        InfeasibleError: There is no equilibrium at these rates.
    """
    for field, value in (("largest", largest), ("resolution", resolution)):
        if not 0 < value < math.inf:
            raise InputError(field, value, "a positive finite number")

    def tips(burst: float) -> bool:
        return recovery_time_s(workload, server, burst, criterion, rule) is None

    if not tips(largest):
        return None
    low, high = 0.0, largest
    while high - low > resolution:
        middle = (low + high) / 2
        low, high = (low, middle) if tips(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class CollapsedCycle:
    """Where greedy settles under a backlog that does not end.

    Attributes:
        completed_per_s: Below the arrivals the backlog grows for ever.
        evicted_per_s: Evictions per second.
        kv_tokens: Mean KV occupied, over iterations.
        residents: Mean mass in the batch, over iterations.
        iteration_time_s: Mean.
    """

    completed_per_s: float
    evicted_per_s: float
    kv_tokens: float
    residents: float
    iteration_time_s: float


@dataclass(frozen=True, repr=False)
class Equilibria(Result):
    """The two states of a server at its rates.

    Attributes:
        good: The fluid equilibrium; `good.stable` says whether it exists.
        collapsed: The state under a lasting backlog.
        metastable: Both exist at these rates: the equilibrium is stable, and the collapsed cycle
            completes less than what arrives.
    """

    good: Equilibrium
    collapsed: CollapsedCycle
    metastable: bool

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each state."""
        good, bad = self.good, self.collapsed
        rate_per_s = good.workload.rate_per_s if good.stable else None
        return {
            "state": ["equilibrium", "collapsed"],
            "completed_per_s": [rate_per_s, bad.completed_per_s],
            "evicted_per_s": [0.0 if good.stable else None, bad.evicted_per_s],
            "kv_tokens": [good.kv_tokens, bad.kv_tokens],
            "iteration_time_s": [good.iteration_time_s, bad.iteration_time_s],
        }

    def blocks(self) -> Iterator[Block]:
        yield Table(
            f"States of {self.good.title} at {number(self.good.workload.rate_per_s)} /s",
            ("state", "completed /s", "evicted /s", "KV tokens", "iteration s"),
            tuple(
                (name, *map(number, figures))
                for name, *figures in zip(*self.frame().values(), strict=True)
            ),
        )
        if self.metastable:
            yield "METASTABLE: a burst can turn the one state into the other."
        elif self.good.stable:
            yield "Not metastable: what a burst leaves behind is completed."
        else:
            yield "There is no equilibrium at these rates."

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.good.workload.name,
            "server": self.good.server.name,
            "metastable": self.metastable,
            "good": self.good.document(),
            "collapsed": asdict(self.collapsed),
        }


def equilibria(
    workload: Workload,
    server: Server,
    rule: Admission | None = None,
    *,
    settle_s: float = 2000.0,
    measure_s: float = 2000.0,
) -> Equilibria:
    """The fluid equilibrium and the collapsed cycle.

    The cycle is what the fluid does once a burst that outlasts the run has hit it: it is measured
    for `measure_s` after `settle_s`.

    Raises:
        InputError: A class of which no request fits into memory, or times out of range.
    """
    good = equilibrium(workload, server)
    # More than a server can complete in the run: it holds at most C tokens per iteration of d0.
    per_request = min(one.prefill_tokens + one.context_tokens for one in workload.classes)
    iterations = (settle_s + measure_s) / server.iteration_time.overhead_s
    path = simulate_fluid(
        workload,
        server,
        horizon_s=settle_s + measure_s,
        rule=rule,
        bursts=[Burst(0.0, iterations * server.usable_kv_tokens / per_request)],
    )
    completed_per_s, evicted_per_s = path.rates_between(settle_s, settle_s + measure_s)
    late = path.time_s >= settle_s
    cycle = CollapsedCycle(
        completed_per_s=completed_per_s,
        evicted_per_s=evicted_per_s,
        kv_tokens=float(path.kv_tokens[late].mean()),
        residents=float(path.residents[late].mean()),
        iteration_time_s=float(np.diff(path.time_s[late]).mean()),
    )
    return Equilibria(good, cycle, good.stable and completed_per_s < workload.rate_per_s)
