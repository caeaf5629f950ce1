"""Prompts in chunks: the chain of (iteration time | tokens left over) (THEORY 9.4).

Here a long queue lets the decoders of the chain remember for longer than one iteration. The young
ones are therefore taken from the chain's own past: E[a_{n−k} | state] follows from the reversed
chain. The old ones come from the linear theory, on the states in which the budget is not used up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fluid.steady.latency import budget as budgets
from fluid.steady.latency.chain import Lattice, costs_of, regressed, same_mean, spaced_nodes
from fluid.steady.latency.chunk_kernels import (
    FULL_ENDS,
    FULL_QUAD,
    OPEN_ENDS,
    OPEN_QUAD,
    Arrivals,
    Budget,
    budget_step,
    full_seconds,
)
from fluid.steady.latency.kernels import Costs, Nodes, balance, relaxation
from fluid.steady.latency.load import Load
from fluid.steady.latency.memory import Memory, no_past, remembered
from fluid.steady.latency.slow import Slopes, Slow, SlowTheory
from fluid.steady.latency.solved import Solved

Floats = NDArray[np.float64]

_OPEN, _LEFT = 64, 72
_ROUNDS, _CALLS = 10, 6
_MOST_DECODES = 0.9
_LEAST_LAG = 0.02


@dataclass(frozen=True)
class States:
    """Nodes of τ and of tokens left over.

    Attributes:
        left: Tokens left over in each state, shape (m,).
        left_ends: Prompts that end in these.
    """

    times: Nodes
    lefts: Nodes
    left: Floats
    left_ends: Floats

    @property
    def open_count(self) -> int:
        """States with nothing left over."""
        return len(self.times.at)


@dataclass
class Chain:
    """The chain as it converges: what one round hands to the next.

    Attributes:
        seconds: Time of the iteration that led to each state, shape (m,).
        flow: Q weighted by the prompts that end; ends: their mean by state, shape (m,).
        good: States with mass.
    """

    load: Load
    costs: Costs
    budget: Budget
    states: States
    lattice: Lattice
    arrivals: Arrivals
    seconds: Floats
    memory: Memory
    law: Floats = field(default_factory=lambda: np.zeros(0))
    step: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    flow: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    moments: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    sums: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    decoders: tuple[Floats, Floats, Floats] = field(default_factory=tuple)  # type: ignore[assignment]
    ends: Floats = field(default_factory=lambda: np.zeros(0))
    good: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))

    @property
    def open_count(self) -> int:
        """States in which no prompt is left over; they come first."""
        return self.states.open_count

    def take_step(self, mean_s: float) -> float:
        """Build the chain for an assumed mean iteration time; returns its own."""
        self.decoders = self.memory.decoders(
            self.load,
            self.seconds,
            self.states.open_count,
            mean_s,
            _MOST_DECODES * self.budget.tokens,
        )
        self.step, self.flow, self.moments, self.sums = budget_step(
            self.states.times,
            self.states.lefts,
            self.states.left,
            self.states.left_ends,
            self.arrivals,
            self.decoders,
            self.budget,
            self.costs,
        )
        self.law = balance(self.step)
        return float(self.law @ self.seconds)

    @property
    def mean_decodes(self) -> tuple[Floats, Floats]:
        """E[B], E[K] in each state."""
        requests, kv, weights = self.decoders
        return (requests * weights).sum(axis=1), (kv * weights).sum(axis=1)

    def settle(self, mean_s: float) -> None:
        """Times of full states, and the two factors that balance prompts and quadratic cost."""
        law, load = self.law, self.load
        into = law @ self.step
        self.good = law > 1e-10
        full_s = self._full_seconds()
        led_by = ((law * full_s) @ self.step) / np.maximum(into, 1e-300)
        opened = self.states.open_count
        places = np.arange(len(law) - opened)
        seen = self.good[opened:]
        if seen.any():
            self.seconds = self.seconds.copy()
            self.seconds[opened:] = np.interp(places, places[seen], led_by[opened:][seen])
            laws = self.arrivals.laws.copy()
            laws[opened:] = self.lattice.laws(self.seconds[opened:])
            self.arrivals = self.arrivals._replace(laws=laws)
        sums = law @ self.sums
        factor, quad_s = self.budget.ends_factor, self.budget.quad_s
        if sums[FULL_ENDS] > 1e-9:
            missing = load.rate_per_s * mean_s - sums[OPEN_ENDS]
            factor = min(max(missing / sums[FULL_ENDS], 0.1), 3.0)
        plain_s = budgets.window_quad_s(load, self.budget.tokens)
        if sums[FULL_QUAD] * plain_s > 1e-12:
            brought_s = mean_s * float(
                load.rates_per_s @ budgets.whole_quad_s(load, self.budget.tokens)
            )
            share = (brought_s - sums[OPEN_QUAD]) / (sums[FULL_QUAD] * plain_s)
            quad_s = plain_s * min(max(share, 0.2), 4.0)
        self.budget = self.budget._replace(ends_factor=factor, quad_s=quad_s)
        ends = np.where(self.good, (law @ self.flow) / np.maximum(into, 1e-300), 0.0)
        self.ends = ends * load.rate_per_s * mean_s / max(float(law @ ends), 1e-300)

    def _full_seconds(self) -> Floats:
        decodes, kv = self.mean_decodes
        return np.array(
            [full_seconds(self.budget, self.costs, b, k) for b, k in zip(decodes, kv, strict=True)]
        )

    @property
    def variance_s2(self) -> float:
        """Of the iteration time."""
        mean_s = float(self.law @ self.seconds)
        return max(float(self.law @ self.seconds**2) - mean_s**2, 1e-18)

    @property
    def full_time_share(self) -> float:
        """Share of time in iterations that leave tokens over."""
        opened = self.states.open_count
        mass = self.law * self.seconds
        return float(mass[opened:].sum() / mass.sum())

    def relaxation(self) -> float:
        """Integrated autocorrelation of the iteration time, iterations."""
        return float(relaxation(self.law, self.step, self.seconds, 300, 0.02))


def start_chain(load: Load, tokens: float, whole: Solved) -> Chain:
    """States and laws around the solution for whole prompts."""
    costs, budget = costs_of(load), budgets.token_budget(load, tokens)
    mean_s = whole.mean_s
    decodes = min(mean_s * load.decodes_per_s, 0.5 * tokens)
    full_s = float(full_seconds(budget, costs, decodes, mean_s * load.kv_read_per_s))
    points = int(budgets.most_arriving(load, full_s) / budget.step) + 2
    lattice = Lattice(load.prompts, load.rates_per_s, budget.step, points)
    states = _states(load, budget, full_s, decodes)
    seconds = np.concatenate([states.times.at, np.full(_LEFT, full_s)])
    return Chain(
        load,
        costs,
        budget,
        states,
        lattice,
        _arrivals(load, lattice, seconds, mean_s),
        seconds,
        Memory.of(whole.slow, len(seconds)),
    )


def _states(load: Load, budget: Budget, full_s: float, decodes: float) -> States:
    """Times up to a full iteration; tokens left over up to the rare end of their tail."""
    tokens, longest = budget.tokens, float(load.prompts.max())
    square = float(load.rates_per_s @ load.prompts**2)
    drift = max(tokens - decodes - load.prompt_tokens_per_s * full_s, 0.01 * tokens)
    decay = 2 * drift / (square * full_s)
    most = min(max(16 / decay, 4 * tokens, 3 * longest), 400 * tokens)
    times = spaced_nodes(load.tau.overhead_s, 1.25 * full_s, _OPEN, 3.0)
    bend = max(math.log(most / (_LEFT * budget.step)), 0.1)
    lefts = spaced_nodes(0.0, most, _LEFT + 1, bend)
    left = np.concatenate([np.zeros(_OPEN), lefts.at[1:]])
    return States(times, lefts, left, budgets.ends_in(load, budget, left))


def _arrivals(load: Load, lattice: Lattice, seconds: Floats, mean_s: float) -> Arrivals:
    ends, quad_s = class_worths(
        load,
        lattice,
        mean_s,
        np.stack([np.ones(len(load.prompts)), load.tau.per_prefill_token_sq_s * load.prompts**2]),
    )
    return Arrivals(lattice.laws(seconds), ends, quad_s)


def class_worths(load: Load, lattice: Lattice, mean_s: float, worths: Floats) -> Floats:
    """E[Σ worth | tokens that arrived] around the mean time."""
    overhead_s = load.tau.overhead_s
    sd_s = math.sqrt(0.7 * mean_s * max(mean_s - overhead_s, 1e-3 * overhead_s))
    return lattice.given_value(worths, mean_s, overhead_s, sd_s)


@dataclass(frozen=True)
class Converged:
    """The chain with its slow part."""

    chain: Chain
    slow: Slow
    mean_s: float
    lag: float
    age: int
    same: bool


def converge(chain: Chain, whole: Solved, theory: SlowTheory) -> Converged:
    """Rounds of chain, slopes, slow part and memory until the mean stands still."""
    load = chain.load
    slow, slopes, mean_s = whole.slow, whole.slow.slopes, whole.mean_s
    lag, age, last_s, same, gain = 1.0, 0, math.inf, False, slow.gain
    for turn in range(_ROUNDS):
        mean_s, calls, gain = same_mean(chain.take_step, mean_s, gain, _CALLS, 5e-4)
        chain.settle(mean_s)
        slopes = _between(
            slopes, regressed(load, chain.law @ chain.moments), 1.0 if turn == 0 else 0.5
        )
        if turn < 4:
            age = _youth(chain)
        slow = theory.at(slopes, mean_s, lag, age)
        if slow.variance_s2 > 0:
            lag = min(max(lag * (chain.variance_s2 / slow.variance_s2) ** 0.7, _LEAST_LAG), 1.0)
        same = calls <= _CALLS and abs(mean_s / last_s - 1) < 1e-2
        if turn >= 2 and calls <= 2 and abs(mean_s / last_s - 1) < 3e-3:
            break
        last_s = mean_s
        past = remembered(load, chain.law, chain.step, chain.ends, chain.good, age)
        past = past if age else no_past(len(chain.law))
        chain.memory = chain.memory.towards(
            Memory.after(slow, past, chain, mean_s), 1.0 if turn == 0 else 0.8
        )
    return Converged(chain, theory.at(slopes, mean_s, lag, 0), mean_s, lag, age, same)


def _between(old: Slopes, new: Slopes, share: float) -> Slopes:
    def mixed(a: float, b: float) -> float:
        return (1 - share) * a + share * b

    return replace(
        new, token_s=mixed(old.token_s, new.token_s), decode_s=mixed(old.decode_s, new.decode_s)
    )


def _youth(chain: Chain) -> int:
    """Ages up to which decoders come from the chain's past: none where the budget hardly binds."""
    if chain.full_time_share < 1e-3:
        return 0
    oldest = int(chain.load.later.max()) + 1
    wanted = min(max(2 * chain.relaxation(), 1.0), float(oldest))
    return 1 << math.ceil(math.log2(wanted))
