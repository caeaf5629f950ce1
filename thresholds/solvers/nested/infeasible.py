"""Why Nested WAIT has no table, and which changes help: each is tried before it is advised."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from fluid.errors import InfeasibleError
from thresholds.solvers.common import rounded_down
from thresholds.solvers.nested.cuts import CutSearch, WholeOptimum, best_over_cuts
from thresholds.solvers.nested.requirement import STRICT
from thresholds.solvers.nested.search import aim_of, best_whole, chains

_TRIALS = (1.0, 0.9, 0.75, 0.5, 0.25)
"""Factors on a change: with other rates or memory other cuts are best, so one alone may not do."""

_NEAREST = 8
"""So many other numbers of segments are tried."""


def infeasible(search: CutSearch, best: WholeOptimum) -> InfeasibleError:
    """Which condition fails, and changes that were tried and help."""
    segments, log = best.segments, best.log
    capacity = search.server.usable_kv_tokens
    starts = chains(segments)
    least, needed = best_whole(aim_of("memory", segments, log), starts)
    _, load = best_whole(aim_of("slack", segments, log), starts)
    if math.isinf(needed):
        cause = "drift"
        what = (
            "no thresholds give Λ_1 ΔT(n) < n_1: full batches of such long segments take too long"
        )
    else:
        base = float(segments.memory_tokens @ least)
        cause = "memory" if base > capacity else "safety buffer"
        what = (
            f"at least {needed:.0f} KV tokens are needed, {base:.0f} of them base memory and "
            f"{needed - base:.0f} buffers, the server has {capacity}"
        )
    scale = _working_scale(search, (1 - STRICT) / load)
    changes = [*_memory_change(search, needed), *_segment_change(search)]
    if scale is not None:
        changes.insert(0, f"multiply all rates by at most {scale}")
    changes.append("use policy paced, which needs no whole request at every stage")
    return InfeasibleError(
        f"Nested WAIT with {_counted(segments.count)}: {what}", cause, ", or ".join(changes), scale
    )


def _works(search: CutSearch) -> bool:
    return bool(np.isfinite(best_over_cuts(search).value))


def _working_scale(search: CutSearch, first: float) -> float | None:
    """A multiple of the rates, below `first`, at which there is a table; three digits."""
    for factor in _TRIALS if 0 < first < 1 else ():
        scale = rounded_down(first * factor)
        if _works(replace(search, lengths=search.lengths.scaled(scale))):
            return scale
    return None


def _memory_change(search: CutSearch, needed: float) -> list[str]:
    """A memory of at least `needed` tokens with which there is a table."""
    block = search.server.block_tokens
    for factor in _TRIALS if math.isfinite(needed) else ():
        tokens = math.ceil(needed / factor / block) * block
        server = search.server.model_copy(update={"kv_capacity_tokens": tokens})
        if _works(replace(search, lengths=replace(search.lengths, server=server))):
            return [f"raise kv_capacity_tokens to at least {tokens}"]
    return []


def _segment_change(search: CutSearch) -> list[str]:
    """The number of segments nearest to the one asked for with which there is a table."""
    if search.segments is None:
        return []
    asked, most = search.segments, search.most
    for count in sorted(range(1, most + 1), key=lambda one: abs(one - asked))[1 : 1 + _NEAREST]:
        if _works(replace(search, segments=count)):
            return [f"use {_counted(count)}"]
    return []


def _counted(segments: int) -> str:
    return "1 segment" if segments == 1 else f"{segments} segments"
