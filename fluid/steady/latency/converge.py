"""The chain with a token budget and its slow part, round by round (THEORY 9.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fluid.steady.latency import budget as budgets
from fluid.steady.latency.chain import regressed, same_mean
from fluid.steady.latency.chunked import Chain
from fluid.steady.latency.endings import endings
from fluid.steady.latency.memory import Memory, no_past, remembered
from fluid.steady.latency.queue import Queue
from fluid.steady.latency.slow import Slopes, Slow, SlowTheory
from fluid.steady.latency.solved import Solved

Floats = NDArray[np.float64]

_ROUNDS, _CALLS = 10, 6
_TOLERANCE, _STILL, _MOVED = 5e-4, 3e-3, 1e-2
"""Of the mean iteration time above that of an empty one."""

_LEAST_LAG = 0.02
_LENGTHS = 5


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
        mean_s, calls, gain = same_mean(
            chain.take_step, mean_s, gain, _CALLS, _TOLERANCE, load.tau.overhead_s
        )
        gain = gain if calls <= _CALLS else slow.gain
        chain.settle(mean_s)
        slopes = _between(
            slopes, regressed(load, chain.law @ chain.moments), 1.0 if turn == 0 else 0.5
        )
        if turn < 4:
            age = _youth(chain)
        slow = theory.at(slopes, mean_s, lag, age)
        if slow.variance_s2 > 0:
            lag = min(max(lag * (chain.variance_s2 / slow.variance_s2) ** 0.7, _LEAST_LAG), 1.0)
        moved = abs(mean_s - last_s) / (mean_s - load.tau.overhead_s)
        same = calls <= _CALLS and moved < _MOVED
        if turn >= 2 and calls <= 2 and moved < _STILL:
            break
        last_s = mean_s
        past = no_past(len(chain.law))
        if age:
            past = remembered(
                load, mean_s, chain.law, chain.step, _ending(chain, mean_s), chain.good, age
            )
        chain.memory = chain.memory.towards(
            Memory.after(slow, past, chain, mean_s), 1.0 if turn == 0 else 0.8
        )
    return Converged(chain, theory.at(slopes, mean_s, lag, 0), mean_s, lag, age, same)


def _ending(chain: Chain, mean_s: float) -> Floats:
    """Law of the state in which the prompt of any request ends.

    A state that the chain hardly visits takes no more prompts than twice what a budget holds.
    """
    load, tokens = chain.load, chain.budget.tokens
    found = load.shares @ endings(Queue(chain, mean_s), budgets.fitting_s(load, tokens), _LENGTHS)
    most = 2 * (tokens / load.prompt_tokens_per_s + 1 / load.rate_per_s) / mean_s
    found = np.minimum(found, most * chain.law)
    return np.asarray(found / found.sum())


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
