"""A workload as a server with a prefix cache computes it, for whoever knows no prefixes."""

from __future__ import annotations

import math

import numpy as np

from fluid.cache.point import Point
from fluid.cache.states import cache_states
from fluid.errors import InfeasibleError
from fluid.server import Server
from fluid.workload import Workload


def served(workload: Workload, server: Server) -> Workload:
    """The same classes with the mean of what is computed as prompt, and what is found as context.

    The hits are those of the state that the server reaches from empty at these rates. A workload
    without prefixes is returned as it is.

    Raises:
        InfeasibleError: There is no such state.
    """
    if not workload.has_prefixes:
        return workload
    states = cache_states(workload, server)
    if states.from_empty is None:
        raise InfeasibleError(
            f"workload {workload.name} on server {server.name}: no balance, whatever is cached",
            "the load, with hits",
            f"multiply all rates by at most {states.max_scale:.4g}",
            states.max_scale,
        )
    return at_hits(workload, states.from_empty)


def at_hits(workload: Workload, point: Point) -> Workload:
    """The classes as a server computes them with the hits of a point."""
    kinds = point.kinds
    turns = np.bincount(kinds.of_class, kinds.rates_per_s)
    found = np.bincount(kinds.of_class, kinds.rates_per_s * point.hit_tokens) / turns
    classes = []
    for one, hit in zip(workload.classes, found.tolist(), strict=True):
        context = min(round(hit), max(one.prefill_tokens - 1, 0))
        changes = {
            "prefill_tokens": one.prefill_tokens - context,
            "context_tokens": one.context_tokens + context,
            "conversation": None,
            "shared_prefix_tokens": None,
        }
        classes.append(one.model_copy(update=changes) if one.has_prefix else one)
    return workload.model_copy(update={"classes": tuple(classes)})


def lightest(workload: Workload) -> Workload:
    """The workload where all that may be found is, and takes no memory: no server carries more."""
    if not workload.has_prefixes:
        return workload
    classes = []
    for one in workload.classes:
        turns = one.turns
        context = float(turns.shares @ turns.context_tokens)
        computed = max(math.floor(one.prefill_tokens - one.prefix_tokens - context), 1)
        changes = {"prefill_tokens": computed, "conversation": None, "shared_prefix_tokens": None}
        classes.append(one.model_copy(update=changes) if one.has_prefix else one)
    return workload.model_copy(update={"classes": tuple(classes)})
