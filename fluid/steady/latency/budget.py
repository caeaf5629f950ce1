"""What a full token budget holds, and the limit that the budget itself sets (THEORY 9.4)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fluid.steady.latency.chunk_kernels import Budget, full_seconds
from fluid.steady.latency.kernels import Costs
from fluid.steady.latency.load import Load
from fluid.steady.latency.slow import chunk_lengths

Floats = NDArray[np.float64]

_CUTS = 200
_FINE, _FINE_PROMPT = 48, 6
"""Points of the lattice in a budget, and in a typical prompt, at least."""


def whole_quad_s(load: Load, tokens: float) -> Floats:
    """Quadratic seconds of each class's prompt, in whole budgets; shape (m,)."""
    tau = load.tau
    found = []
    for prompt in load.prompts:
        part = chunk_lengths(prompt, tokens)
        before = np.cumsum(part) - part
        square_s = tau.per_prefill_token_sq_s * float(part @ part)
        found.append(square_s + tau.per_prefill_context_token_s * float(part @ before))
    return np.array(found)


def window_quad_s(load: Load, tokens: float) -> float:
    """Mean of the same over a window cut anywhere from an endless row of prompts."""
    tau = load.tau
    square, context = tau.per_prefill_token_sq_s, tau.per_prefill_context_token_s
    if not (square or context):
        return 0.0
    total = 0.0
    for rate, prompt in zip(load.rates_per_s, load.prompts, strict=True):
        if prompt <= 0:
            continue
        begin = -tokens + (np.arange(_CUTS) + 0.5) * (prompt + tokens) / _CUTS
        before = np.maximum(begin, 0.0)
        inside = np.minimum(tokens + begin, prompt) - before
        mean = float((square * inside**2 + context * inside * before).mean())
        total += rate / load.prompt_tokens_per_s * (prompt + tokens) * mean
    return total


def token_budget(load: Load, tokens: float) -> Budget:
    """The budget with a lattice that a single prompt length falls on."""
    prompts = np.unique(load.prompts[load.prompts > 0])
    typical = float(load.rates_per_s @ load.prompts**2) / load.prompt_tokens_per_s
    step = min(tokens / _FINE, typical / _FINE_PROMPT)
    if len(prompts) == 1:
        step = float(prompts[0]) / max(1, round(prompts[0] / step))
    return Budget(
        tokens=tokens,
        mean_prompt=load.prompt_tokens_per_s / load.rate_per_s,
        quad_s=window_quad_s(load, tokens),
        ends_factor=1.0,
        step=step,
    )


def budget_share(load: Load, budget: Budget, costs: Costs) -> float:
    """ρ_c = Σ λ_j (l_j + N_j)·T_c/c: at 1 every iteration is full and the queue grows.

    T_c is the time of a full iteration with as many decodes as belong to its prompt tokens.
    """
    per_request = load.decodes_per_s / load.rate_per_s
    busy = budget.tokens * per_request / (budget.mean_prompt + per_request)
    kv = busy * load.kv_read_per_s / load.decodes_per_s if load.decodes_per_s else 0.0
    tokens_per_s = load.prompt_tokens_per_s + load.decodes_per_s
    return tokens_per_s * float(full_seconds(budget, costs, busy, kv)) / budget.tokens


def ends_in(load: Load, budget: Budget, left: Floats) -> Floats:
    """Prompts that end in so many tokens left over, the last of which ends one; 0 in none.

    The renewal function U(r) = 1 + Σ_j (λ_j/λ) U(r − l_j).
    """
    size = int(budget.tokens / budget.step) + 2
    renewals = np.ones(size)
    steps = [
        (share, max(1, round(prompt / budget.step)))
        for share, prompt in zip(load.shares, load.prompts, strict=True)
        if prompt > 0
    ]
    for place in range(size):
        renewals[place] += sum(share * renewals[place - k] for share, k in steps if place > k)
    found = np.interp(left / budget.step, np.arange(size), renewals)
    return np.where(left > 0, found, 0.0)


def most_arriving(load: Load, full_s: float) -> float:
    """Prompt tokens that hardly more arrive in a full iteration."""
    square = float(load.rates_per_s @ load.prompts**2)
    longer_s = 1.3 * full_s
    return (
        load.prompt_tokens_per_s * longer_s
        + 7 * math.sqrt(square * longer_s)
        + float(load.prompts.max())
    )
