"""Prompts in chunks: the chain of (iteration time | tokens left over) (THEORY 9.4).

Here a long queue lets the decoders of the chain remember for longer than one iteration. The young
ones are therefore taken from the chain's own past: E[a_{n−k} | state] follows from the reversed
chain. The old ones come from the linear theory, on the states in which the budget is not used up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fluid.steady.latency import budget as budgets
from fluid.steady.latency.chain import Lattice, costs_of, spaced_nodes
from fluid.steady.latency.chunk_kernels import (
    CUT_QUAD,
    NEW_QUAD,
    Arrivals,
    Budget,
    budget_step,
    full_seconds,
)
from fluid.steady.latency.kernels import Costs, Nodes, balance
from fluid.steady.latency.load import Load
from fluid.steady.latency.memory import Memory
from fluid.steady.latency.solved import Solved
from fluid.steady.latency.walks import relaxation

Floats = NDArray[np.float64]

_OPEN, _LEFT = 64, 72
_MOST_DECODES = 0.9


@dataclass(frozen=True)
class States:
    """Nodes of τ and of tokens left over.

    Attributes:
        left: Tokens left over in each state, shape (m,).
    """

    times: Nodes
    lefts: Nodes
    left: Floats

    @property
    def open_count(self) -> int:
        """States with nothing left over."""
        return len(self.times.at)


@dataclass
class Chain:
    """The chain as it converges: what one round hands to the next.

    Attributes:
        seconds: Time of the iteration that led to each state, shape (m,).
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
    moments: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    quads: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    decoders: tuple[Floats, Floats, Floats] = field(default_factory=tuple)  # type: ignore[assignment]
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
        self.step, self.moments, self.quads = budget_step(
            self.states.times,
            self.states.lefts,
            self.states.left,
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
        """Times of full states, and the quadratic cost of a full budget, which balances it."""
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
        quads = law @ self.quads
        plain_s = budgets.window_quad_s(load, self.budget.tokens)
        if quads[CUT_QUAD] * plain_s > 1e-12:
            brought_s = mean_s * float(
                load.rates_per_s @ budgets.whole_quad_s(load, self.budget.tokens)
            )
            share = (brought_s - quads[NEW_QUAD]) / (quads[CUT_QUAD] * plain_s)
            self.budget = self.budget._replace(quad_s=plain_s * min(max(share, 0.2), 4.0))

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
    return States(times, lefts, left)


def _arrivals(load: Load, lattice: Lattice, seconds: Floats, mean_s: float) -> Arrivals:
    square_s = load.tau.per_prefill_token_sq_s * load.prompts**2
    overhead_s = load.tau.overhead_s
    sd_s = math.sqrt(0.7 * mean_s * max(mean_s - overhead_s, 1e-3 * overhead_s))
    (quad_s,) = lattice.given_value(square_s[None], mean_s, overhead_s, sd_s)
    return Arrivals(lattice.laws(seconds), quad_s)
