"""Reads means and laws from a converged chain with a token budget (THEORY 9.4)."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft

from fluid.steady.latency import budget as budgets
from fluid.steady.latency.chain import costs_of
from fluid.steady.latency.chunked import start_chain
from fluid.steady.latency.converge import Converged, converge
from fluid.steady.latency.endings import endings
from fluid.steady.latency.load import Load
from fluid.steady.latency.queue import Queue
from fluid.steady.latency.slow import Slow, SlowTheory
from fluid.steady.latency.solved import Cdfs, Idle, Solved, idleness
from fluid.steady.latency.waits import moved_to_means
from fluid.steady.latency.walks import seconds_ahead

Floats = NDArray[np.float64]

_STILL = 1e-4


def limit_of_budget(load: Load, tokens: float) -> float:
    """ρ_c of THEORY 9.4."""
    return budgets.budget_share(load, budgets.token_budget(load, tokens), costs_of(load))


def solve_chunked(load: Load, tokens: float, whole: Solved) -> Solved:
    """The chain with a budget, started from that for whole prompts; ρ_c must be below 1."""
    chain = start_chain(load, tokens, whole)
    share = budgets.budget_share(load, chain.budget, chain.costs)
    theory = SlowTheory(load, tokens)
    found = converge(chain, whole, theory)
    queue = Queue(chain, found.mean_s)
    fitting_s = budgets.fitting_s(load, tokens)
    starts = endings(queue, fitting_s)
    alone_s = _alone_s(load, tokens)
    idle = idleness(
        load,
        found.slow,
        chain.seconds[: chain.states.open_count],
        chain.law[: chain.states.open_count],
        found.mean_s,
    )
    first_s = _corrected(load, found.slow, idle, queue.mean_first_stage_s(fitting_s), alone_s)
    return Solved(
        load=load,
        slow=found.slow,
        seconds=chain.seconds,
        law=chain.law,
        step=chain.step,
        mean_s=found.mean_s,
        idle=idle,
        first_stage_s=first_s,
        alone_s=alone_s,
        starts=starts,
        after_s=_after(found, theory, starts),
        make_first_stage=partial(_first_stage, queue, fitting_s, first_s, alone_s, idle.share),
        converged=found.same,
        budget_share=share,
        saturated_share=chain.full_time_share,
        longest_s=float(chain.seconds[chain.states.open_count :].max()),
    )


def _alone_s(load: Load, tokens: float) -> Floats:
    """Chunks of a prompt one after the other on an idle server, shape (m,)."""
    tau = load.tau
    quad_s = budgets.whole_quad_s(load, tokens)
    found = []
    for prompt, square_s, first_s in zip(load.prompts, quad_s, load.first_s, strict=True):
        if prompt == 0:
            found.append(float(load.token_seconds(np.array(1.0))) + first_s)
            continue
        full = max(0, -(-int(prompt) // int(tokens)) - 1)
        rest = prompt - full * tokens
        f = full * load.token_seconds(np.array(float(tokens))) + load.token_seconds(np.array(rest))
        found.append(float(f) + tau.per_prefill_token_s * prompt + square_s)
    return np.array(found)


def _corrected(load: Load, slow: Slow, idle: Idle, ttft_s: Floats, alone_s: Floats) -> Floats:
    overhead_s = load.tau.overhead_s
    chain_empty_s = overhead_s / 2 + alone_s + slow.prompt_work * overhead_s
    return idle.corrected(ttft_s, alone_s, chain_empty_s)


def _first_stage(
    queue: Queue, fitting_s: Floats, means_s: Floats, alone_s: Floats, idle_share: float
) -> Cdfs:
    laws, row = queue.laws(fitting_s)
    busy_s = (means_s - idle_share * alone_s) / (1 - idle_share)
    stretched = [
        np.interp(laws.points_s * laws.mean_s()[k] / busy_s[j], laws.points_s, laws.below[k])
        for j, k in enumerate(row)
    ]
    return moved_to_means(Cdfs(laws.points_s, np.array(stretched)), means_s, alone_s, idle_share)


def _after(found: Converged, theory: SlowTheory, starts: Floats) -> list[Floats]:
    """`Slow.after_prefill_s`, the part of other requests from the chain where it remembers.

    Iterations after the end of a prefill of this class, what the request's own decodes add, and
    the fluctuations of decoders older than the chain remembers.
    """
    chain, load, slow = found.chain, found.chain.load, found.slow
    if not found.age:
        return slow.after_prefill_s()
    most = int(load.later.max()) + 1
    others = np.zeros((len(starts), most + 1))
    seconds_ahead(
        starts, chain.step, chain.seconds - found.mean_s, others[:, 1:], _STILL * found.mean_s
    )
    if found.age < most - 1:
        others[:, 1:] += _slow_part(found, theory)[2 : most + 2]
    summed = np.cumsum(others, axis=1)
    own = slow.own_after_prefill_s()
    return [one + summed[j, : len(one)] for j, one in enumerate(own)]


def _slow_part(found: Converged, theory: SlowTheory) -> Floats:
    """Covariances of the iteration time that old decoders alone cause, divided by μ."""
    whole = theory.at(found.slow.slopes, found.mean_s, found.lag, found.age)
    fast = whole.without_old()
    size = whole.parts.size
    return np.asarray(irfft(whole.spectrum - fast.spectrum, size) / found.mean_s)
