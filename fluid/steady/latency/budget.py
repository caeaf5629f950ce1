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
_FINE, _FINE_PROMPT = 40, 6
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


def fitting_s(load: Load, tokens: float) -> Floats:
    """Seconds apart from f of a first stage that fits into a budget, shape (m,); 0 of others."""
    square_s = load.tau.per_prefill_token_sq_s * load.prompts**2
    fitting = np.where(load.prompts <= tokens, square_s, 0.0)
    return np.where(load.prompts > 0, fitting, load.first_s)


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
        quad_s=window_quad_s(load, tokens),
        step=step,
    )


def budget_share(load: Load, budget: Budget, costs: Costs) -> float:
    """ρ_c = Σ λ_j (l_j + N_j)·T_c/c: at 1 every iteration is full and the queue grows.

    T_c is the time of a full iteration with as many decodes as belong to its prompt tokens.
    """
    per_request = load.decodes_per_s / load.rate_per_s
    busy = budget.tokens * per_request / (load.prompt_tokens_per_s / load.rate_per_s + per_request)
    kv = busy * load.kv_read_per_s / load.decodes_per_s if load.decodes_per_s else 0.0
    tokens_per_s = load.prompt_tokens_per_s + load.decodes_per_s
    return tokens_per_s * float(full_seconds(budget, costs, busy, kv)) / budget.tokens


def most_arriving(load: Load, full_s: float) -> float:
    """Prompt tokens that hardly more arrive in a full iteration."""
    square = float(load.rates_per_s @ load.prompts**2)
    longer_s = 1.3 * full_s
    return (
        load.prompt_tokens_per_s * longer_s
        + 7 * math.sqrt(square * longer_s)
        + float(load.prompts.max())
    )
