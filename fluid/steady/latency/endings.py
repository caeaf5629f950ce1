"""Where prompts end: the state of the chain in which a request begins to decode (THEORY 9.1, 9.4).

A request arrives at a moment that is uniform in its iteration, behind the tokens ahead of it; those
that come later are independent of it (Mecke's formula). Its prompt ends in the k-th iteration
after, see `queue`, and what came behind it meanwhile is the work, or what is left over, there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len

from fluid.steady.latency.chunk_kernels import first_endings, fitting_shares, later_endings
from fluid.steady.latency.queue import MOMENT_SHARES, MOMENT_WEIGHTS, Queue

Floats = NDArray[np.float64]


_GRID = 9
_ROUNDS = np.unique(np.round(2 * 1.6 ** np.arange(14)))
_RARE = 1e-6


def endings(queue: Queue, fitting_s: Floats, lengths: int = 10) -> Floats:
    """Law of the state in which a prompt of each class ends, shape (classes, m).

    Args:
        fitting_s: Seconds apart from f of a prompt that fits into the budget, shape (classes,).
        lengths: Most prompt lengths with a law of their own.
    """
    prompts = queue.chain.load.prompts
    chosen = np.unique(prompts)
    if len(chosen) > lengths:
        shares = np.linspace(0, 1, lengths)
        chosen = np.unique(np.quantile(prompts, shares, method="closest_observation"))
    fits, later = _fits(queue), _Later(queue)
    laws = np.array(
        [
            _ending(queue, float(one), float(fitting_s[prompts == one][0]), fits, later)
            for one in chosen
        ]
    )
    # Between two of the lengths a mixture of their laws.
    place = np.interp(prompts, chosen, np.arange(len(chosen)))
    low = np.minimum(place.astype(np.int64), max(len(chosen) - 2, 0))
    share = (place - low)[:, None]
    return np.asarray(laws[low] * (1 - share) + laws[np.minimum(low + 1, len(chosen) - 1)] * share)


def _ending(queue: Queue, prompt: float, fitting_s: float, fits: Floats, later: _Later) -> Floats:
    chain = queue.chain
    at_once = first_endings(
        queue.palm,
        chain.states.left,
        chain.arrivals,
        *chain.mean_decodes,
        prompt,
        fitting_s,
        fits,
        chain.states.times,
        chain.states.lefts,
        chain.budget,
        chain.costs,
    )
    found = later.law(prompt)
    rest = max(1 - float(found.sum()), 0.0)
    total = float(at_once.sum())
    found = found + (at_once * (rest / total) if total > 0 else 0.0)
    return np.asarray(found / found.sum())


def _fits(queue: Queue) -> Floats:
    """P(at most y lattice points come before a moment | x in all), shape (y, x)."""
    chain = queue.chain
    lattice, budget = chain.lattice, chain.budget
    typical_s = float(queue.palm @ chain.seconds)
    return np.asarray(
        fitting_shares(
            lattice.laws(MOMENT_SHARES * typical_s),
            lattice.laws((1 - MOMENT_SHARES) * typical_s),
            MOMENT_WEIGHTS,
            lattice.laws(np.array([typical_s]))[0],
            int(budget.tokens / budget.step) + 2,
        )
    )


class _Later:
    """Laws of the state after a prompt that takes two iterations or more."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        chain, (b, k, full_s) = queue.chain, queue.full
        heavy = int(np.searchsorted(np.cumsum(queue.mean_law), 1 - _RARE))
        longest = queue.tokens[min(heavy, len(queue.tokens) - 1)] + chain.load.prompts.max()
        self.rounds = _ROUNDS[: np.searchsorted(_ROUNDS, longest // queue.room + 2) + 1]
        self.grid = np.linspace(0, queue.room, _GRID)
        waits_s = (self.rounds - 1) * full_s + float(queue.palm @ chain.seconds) / 2
        size = int(next_fast_len(2 * len(queue.tokens), real=True))
        behind = irfft(np.exp(waits_s[:, None] * chain.lattice.exponent(size)), size)
        self.table = later_endings(
            np.maximum(behind[:, : len(queue.tokens)], 0.0),
            self.grid,
            queue.room,
            b,
            k,
            chain.states.times,
            chain.states.lefts,
            chain.budget,
            chain.costs,
        ).reshape(len(self.rounds) * _GRID, len(chain.seconds))

    def law(self, prompt: float) -> Floats:
        """Mass by state of a prompt that does not end in the first iteration."""
        queue = self.queue
        total = queue.tokens + prompt
        count = np.maximum(np.ceil(total / queue.room - 1e-9), 1.0)
        there = (count >= 2) & (queue.mean_law > 0)
        into = (total - (count - 1) * queue.room)[there] / queue.room * (_GRID - 1)
        mass = queue.mean_law[there]
        middles = np.sqrt(self.rounds[1:] * self.rounds[:-1])
        first = np.searchsorted(middles, count[there]) * _GRID
        low = np.clip(into.astype(np.int64), 0, _GRID - 2)
        share = np.clip(into - low, 0.0, 1.0)
        size = len(self.table)
        weights = np.bincount(first + low, mass * (1 - share), size)
        weights += np.bincount(first + low + 1, mass * share, size)
        return np.asarray(weights @ self.table)
