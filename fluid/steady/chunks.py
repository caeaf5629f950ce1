"""Limits where prompts are computed in chunks (THEORY 2.3, 5.6, 9.4).

The region of THEORY 2.3 is that of whole prompts. A prompt of l tokens in chunks χ_1 … χ_k takes
c_sq Σ χ² + c_ctx (l² − Σ χ²)/2 instead of c_sq l², and k iterations instead of one. Where
c_ctx < 2 c_sq smaller chunks are less work, so that an engine that chunks can carry more; where the
chunks come from a token budget, that budget is a limit of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.result import number
from fluid.server import Server, require_fits
from fluid.steady.intake import Intake, intake
from fluid.steady.stability import curve_scale, largest_scale
from fluid.workload import Workload

Floats = NDArray[np.float64]

MATTERS = 1.01
"""Ratio of the limits from which on chunks are worth a word."""


@dataclass(frozen=True)
class ChunkLimit:
    """Largest multiple of a workload's rates with prompts in chunks.

    Attributes:
        scale: The multiple.
        whole_scale: α* of THEORY 2.3, for whole prompts.
        binding: "tokens" where the budget itself is the limit, otherwise "work and memory".
        chunks: Chunks of each class's prompt, on average, in order of the classes.
        budget_tokens: Of an engine with a token budget; None where chunks are free to choose.
    """

    scale: float
    whole_scale: float
    binding: str
    chunks: tuple[float, ...]
    budget_tokens: int | None = None

    def sentence(self, rate_per_s: float) -> str:
        """The limit in words, for a workload of this total rate."""
        limit = f"{number(self.scale * rate_per_s)} requests/s"
        whole = number(self.whole_scale * rate_per_s)
        if self.budget_tokens is None:
            return (
                f"These are limits of whole prompts, {whole} here. In chunks they are less work: "
                f"the limit is {limit} however they are cut."
            )
        cause = "tokens per iteration bind" if self.binding == "tokens" else f"{self.binding} bind"
        return (
            f"With prompts in chunks, {self.budget_tokens:,} tokens an iteration: up to {limit} "
            f"(whole prompts {whole}); {cause}."
        )

    def document(self, rate_per_s: float) -> dict[str, Any]:
        """What ``--json`` prints of it."""
        return {
            "rate_per_s": self.scale * rate_per_s,
            "max_scale": self.scale,
            "binding": self.binding,
            "chunks": list(self.chunks),
            "budget_tokens": self.budget_tokens,
        }

    @property
    def matters(self) -> bool:
        """Whether chunks carry more than 1 % above whole prompts."""
        return self.scale > MATTERS * self.whole_scale


def chunked(workload: Workload, server: Server, budget_tokens: int | None = None) -> ChunkLimit:
    """`budget_limit` where there is a budget, otherwise `chunk_limit`."""
    if budget_tokens is None:
        return chunk_limit(workload, server)
    return budget_limit(workload, server, budget_tokens)


def chunk_limit(workload: Workload, server: Server) -> ChunkLimit:
    """What no policy exceeds, however it cuts each prompt, where the iteration time is affine.

    Each class has its own best number of chunks, and those grow from one to the next: a prompt
    holds what it has computed, and late tokens hold memory for less time. Approximate, as
    everything, where the iteration time is not affine.

    Raises:
        InputError: A request does not fit into the cache.

    >>> import fluidwait as fw
    >>> from fluid.steady.chunks import chunk_limit
    >>> tau = fw.IterationTime(tokens_knots=(0, 1), seconds_knots=(0.01, 0.01),
    ...                        per_prefill_token_sq_s=1e-8)
    >>> server = fw.Server(name="squares", source="an example", kv_capacity_tokens=36_000,
    ...                    iteration_time=tau)
    >>> found = chunk_limit(fw.Workload.of(long=fw.Requests(1.0, 4_000, 10)), server)
    >>> round(found.whole_scale, 2), round(found.scale, 1), found.chunks
    (5.84, 35.3, (24.0,))
    """
    require_fits(workload, server)
    whole = largest_scale(workload, server)
    tau = server.iteration_time
    gain_s = tau.per_prefill_token_sq_s - tau.per_prefill_context_token_s / 2
    if gain_s <= 0:
        return ChunkLimit(whole, whole, "work and memory", (1.0,) * len(workload.classes))
    held_s = tau.overhead_s / server.usable_kv_tokens
    best = [_best_chunks(one.prefill_tokens, gain_s, held_s) for one in workload.classes]
    # Seconds of work saved, and token-iterations added, by a request of each class.
    saved_s, added = np.array([cost[1:] for cost in best]).T
    curve = intake(workload, server)
    scale = max(whole, _scale(curve, curve.linear_s - saved_s, np.floor(added)))
    return ChunkLimit(scale, whole, "work and memory", tuple(float(cost[0]) for cost in best))


def _scale(curve: Intake, linear_s: Floats, added: Floats) -> float:
    """α* with other seconds apart from f, and more token-iterations, of a request, shape (m,)."""
    changed = replace(curve, linear_s=linear_s, memory_sums=curve.memory_sums + added)
    return curve_scale(changed)


def _best_chunks(prompt: int, gain_s: float, held_s: float) -> tuple[int, float, float]:
    """Number of chunks that costs least, the seconds that it saves, the token-iterations it adds.

    For k chunks the least A Σ p_i² + B Σ_i (p_1 + … + p_i) with Σ p_i = l has p_i growing by
    B/(2A) a step, and is A l²/k + B l (k+1)/2 − B² k(k²−1)/(48 A).
    """
    best = (1, 0.0, 0.0)
    least = gain_s * prompt**2 + held_s * prompt
    growth = held_s / (2 * gain_s)
    for k in range(2, prompt + 1):
        spread = k * (k * k - 1) / 12
        if growth * (k - 1) / 2 > prompt / k:
            break
        squares = prompt**2 / k + growth**2 * spread
        held = (k + 1) * prompt / 2 - growth * spread
        cost = gain_s * squares + held_s * held
        if cost >= least:
            break
        least, best = cost, (k, gain_s * (prompt**2 - squares), held - prompt)
    return best


def require_budget(server: Server, budget_tokens: int | None) -> None:
    """Refuse a token budget that is none, or that does not suit the server.

    Raises:
        InputError: Naming it.
    """
    if budget_tokens is None:
        return
    if budget_tokens < 1:
        raise InputError("budget_tokens", budget_tokens, "at least 1")
    if server.first_token != "prefill":
        allowed = 'none, as first_token of the server is not "prefill"'
        raise InputError("budget_tokens", budget_tokens, allowed)


def budget_limit(workload: Workload, server: Server, budget_tokens: int) -> ChunkLimit:
    """The limit of an engine with a token budget, decodes first, prompts in order of arrival.

    *Tokens*: behind a long queue every iteration computes the whole budget c, so that
    Σ λ_j ((l_j + N_j)·f(c)/c + the rest of w_j) ≤ 1, prompts cut at random. *Work and memory*: as
    2.3 with as many iterations as a prompt needs, its memory taken whole. Where memory has room for
    all that full budgets bring in, tokens are the limit; else the lower of the two.

    Raises:
        InputError: A request does not fit, no budget, or a server whose prefill emits no token.
    """
    require_fits(workload, server)
    require_budget(server, budget_tokens)
    whole = largest_scale(workload, server)
    tau = server.iteration_time
    curve = intake(workload, server)
    rates = curve.flow.rates_per_s
    prompts = curve.flow.prompt_tokens.astype(float)
    later = curve.flow.decodes
    # The rest of w_j with the squares of a whole prompt taken out of it.
    plain_s = curve.linear_s - tau.per_prefill_token_sq_s * prompts**2

    share = float(rates @ prompts) / curve.flow.tokens_per_s
    cut = np.array([_cut_squares(one, share * budget_tokens) for one in prompts])
    seconds = plain_s + _quadratic_s(server, prompts, cut)
    full_s = max(float(tau.token_seconds(budget_tokens)), tau.overhead_s)
    token_scale = 1 / float(rates @ (seconds + (prompts + later) * full_s / budget_tokens))

    # At the largest intake decodes leave this much of the budget.
    intake_s = curve.limit_s
    room = max(1.0, budget_tokens - curve.flow.decodes_per_s * min(intake_s, 1 / token_scale))
    pieces = np.maximum(np.ceil(prompts / room), 1.0)
    parts = [_whole_squares(one, room) for one in prompts]
    seconds = plain_s + _quadratic_s(server, prompts, np.array(parts))
    first = np.where(prompts > 0, curve.sums.first_held_tokens, 0.0)
    added = (pieces - 1) * first
    memory_scale = _scale(curve, seconds, added)
    held = float(rates @ (curve.memory_sums + added)) * budget_tokens / curve.flow.tokens_per_s
    if token_scale <= memory_scale or held <= server.usable_kv_tokens:
        counts = prompts / (share * budget_tokens)
        return ChunkLimit(token_scale, whole, "tokens", tuple((counts + 1).tolist()), budget_tokens)
    return ChunkLimit(memory_scale, whole, "work and memory", tuple(pieces.tolist()), budget_tokens)


def _quadratic_s(server: Server, prompts: Floats, squares: Floats) -> Floats:
    """Seconds of c_sq Σ χ² + c_ctx Σ χ·ctx for prompts whose chunks have these Σ χ²."""
    tau = server.iteration_time
    contexts = (prompts**2 - squares) / 2
    return np.asarray(
        tau.per_prefill_token_sq_s * squares + tau.per_prefill_context_token_s * contexts
    )


def _cut_squares(prompt: float, window: float) -> float:
    """Mean Σ χ² of a prompt in an endless row of them that is cut every `window` tokens."""
    if prompt <= window:
        return prompt**2 - prompt**3 / (3 * window)
    return prompt * window - window**2 / 3


def _whole_squares(prompt: float, window: float) -> float:
    """Σ χ² of a prompt in whole windows and a rest."""
    full = math.floor(prompt / window)
    return full * window**2 + (prompt - full * window) ** 2
