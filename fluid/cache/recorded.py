"""The fluid model of a prefix cache for recorded prompts, by their hit curve (THEORY 10.3).

The exact LRU stack distances of a trace say what share of its prompt tokens a cache of each size
finds (`fluid.traces.hit_curve`). Residents leave F = C − M* of the memory; what is found in it
shortens iterations, and with them M*.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from fluid.cache.result import CacheState
from fluid.errors import InputError
from fluid.server import Server, require_fits
from fluid.steady.intake import intake
from fluid.workload import Workload

_GRID = 200


def recorded_states(
    workload: Workload, server: Server, hit_curve: Sequence[tuple[float, float]]
) -> tuple[CacheState, ...]:
    """All stable states, by falling share of hits; none where the load is too much.

    Args:
        workload: Summary of the trace, without prefixes.
        hit_curve: (cache tokens, share of the prompt tokens found), rising; straight in between.

    Raises:
        InputError: A workload with prefixes of its own, a curve that falls, or a request that does
            not fit.

    >>> import fluidwait as fw
    >>> from fluid.cache.recorded import recorded_states
    >>> load = fw.Workload.of(chat=fw.Requests(5.0, prompt=1000, output=100))
    >>> server = fw.Server.named("paper-long-decode")
    >>> [round(one.hit_share, 2) for one in recorded_states(load, server, [(0, 0), (137_000, 0.5)])]
    [0.47]
    """
    if workload.has_prefixes:
        raise InputError("workload", workload.name, "classes without prefixes of their own")
    sizes, shares = np.array([(0.0, 0.0), *hit_curve], dtype=float).T
    if (np.diff(sizes) < 0).any() or (np.diff(shares) < 0).any() or shares[-1] > 1:
        raise InputError("hit_curve", list(hit_curve), "rising sizes and shares up to 1")
    require_fits(workload, server)
    capacity = float(server.usable_kv_tokens)

    def state(resident_tokens: float) -> CacheState | None:
        """What follows where residents hold so much."""
        free = capacity - resident_tokens
        share = float(np.interp(free, sizes, shares))
        classes = tuple(
            one.model_copy(
                update={
                    "prefill_tokens": one.prefill_tokens - round(share * one.prefill_tokens),
                    "context_tokens": one.context_tokens + round(share * one.prefill_tokens),
                }
            )
            for one in workload.classes
        )
        curve = intake(workload.model_copy(update={"classes": classes}), server)
        balance_s = curve.least_balance_s()
        if balance_s is None:
            return None
        held = balance_s * curve.kv_tokens_per_s
        # How long the cache holds what requests leave: the tokens that pass through it.
        columns = workload.columns
        left = columns.prefill_tokens * (1 - share) + columns.decode_tokens
        survive_s = free / float(columns.rates_per_s @ left)
        return CacheState(survive_s, share, balance_s, held, free)

    def excess(resident_tokens: float) -> float:
        found = state(resident_tokens)
        return np.inf if found is None else found.resident_tokens - resident_tokens

    grid = np.linspace(0, capacity, _GRID)
    values = [excess(one) for one in grid]
    found = []
    for (low, above), (high, below) in itertools.pairwise(zip(grid, values, strict=True)):
        if above > 0 >= below:
            for _ in range(60):
                middle = (low + high) / 2
                low, high = (middle, high) if excess(middle) > 0 else (low, middle)
            settled = state(high)
            assert settled is not None
            found.append(settled)
    return tuple(found)
