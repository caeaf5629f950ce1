"""Cuts and thresholds whose memory fits by the law of the boundary queues, not by Theorem 2.

The search over designs knows Theorem 2's requirement only. Designs that need more than the server
has by the theorem may fit by the law, which asks for less: the search is given more memory than
there is, as much as still leaves a best design that fits by the law. No bound is known on what
other designs that fit by the law can do.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fluid.errors import InfeasibleError
from thresholds.fields import QueueLaw
from thresholds.solvers.nested.cuts import CutSearch, WholeOptimum
from thresholds.solvers.nested.joint import best_design
from thresholds.solvers.nested.memory_law import memory_law

_MOST = 2.0
"""Multiple of the server's memory up to which the search is given some."""

_STEPS = 5
"""Bisections of that multiple, each a search of its own."""


def best_design_by_law(search: CutSearch, time_limit_s: float) -> WholeOptimum:
    """The best design found whose KV fits by the law; without a bound.

    Raises:
        InfeasibleError: None was found.
    """
    found: WholeOptimum | None = None
    low, high = 1.0, _MOST
    factor = low
    for _ in range(_STEPS + 1):
        one = _with_memory(search, factor, time_limit_s / (_STEPS + 1))
        fits = one is not None and _fits(search, one)
        if fits and one is not None and (found is None or one.value < found.value):
            found = one
        # Too little memory for any design asks for more, a design that does not fit for less.
        if fits or one is None:
            low = factor
        else:
            high = factor
        factor = (low + high) / 2
    if found is None:
        raise InfeasibleError(
            "Nested WAIT: no thresholds were found whose KV fits by the law of the boundary queues",
            "memory",
            "raise kv_capacity_tokens, or use policy paced, which needs no whole request at every "
            "stage",
        )
    return found


def law_of(search: CutSearch, design: WholeOptimum) -> QueueLaw | None:
    """What the law says of a design on the server of the search."""
    return memory_law(
        design.thresholds, design.segments, search.horizon_s, search.overflow_probability
    )


def _with_memory(search: CutSearch, factor: float, time_limit_s: float) -> WholeOptimum | None:
    """The best design on a server of so many times the memory, None where none is feasible."""
    tokens = int(factor * search.server.kv_capacity_tokens)
    server = search.server.model_copy(update={"kv_capacity_tokens": tokens})
    larger = replace(search, lengths=replace(search.lengths, server=server))
    found = best_design(larger, time_limit_s)
    if not np.isfinite(found.value):
        return None
    return replace(found, segments=search.lengths.segments(found.ends), bound=None)


def _fits(search: CutSearch, design: WholeOptimum) -> bool:
    capacity = search.server.usable_kv_tokens
    if design.segments.count == 1:
        return float(design.thresholds @ design.segments.memory_tokens) <= capacity
    law = law_of(search, design)
    return law is not None and law.tokens <= capacity
