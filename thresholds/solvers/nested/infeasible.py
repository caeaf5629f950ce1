"""Why Nested WAIT has no table, and which changes help."""

from __future__ import annotations

import math
from dataclasses import replace

from fluid.errors import InfeasibleError
from thresholds.solvers.common import rounded_down
from thresholds.solvers.nested.cuts import CutSearch, WholeOptimum
from thresholds.solvers.nested.joint import best_design, is_feasible
from thresholds.solvers.nested.requirement import STRICT, chain_holds, nested_memory

_NEAREST = 8
"""So many other numbers of segments are tried."""

_ADVICE_S = 1.0
"""Seconds for each problem that is solved for the sake of advice."""

_SLOW = 1e-6
"""Multiple of the rates at which drift holds for any thresholds that fit."""


def infeasible(search: CutSearch, least: WholeOptimum) -> InfeasibleError:
    """Which condition fails, and changes that help: solved with each.

    Args:
        least: The design of least memory, `joint.best_design`'s answer where none is feasible.
    """
    capacity, segments = search.server.usable_kv_tokens, least.segments
    needed = math.inf
    drift = float(segments.load(least.thresholds)) <= 1 - STRICT
    if drift and bool(chain_holds(least.thresholds, segments)):
        needed = float(nested_memory(least.thresholds, segments, least.log).total)
    scope = "any cuts" if search.segments is None else f"any cuts into {_counted(search.segments)}"
    if math.isinf(needed):
        cause = "drift"
        what = (
            "no thresholds give Λ_1 ΔT(n) < n_1: full batches of such long segments take too long"
        )
    else:
        base = float(segments.memory_tokens @ least.thresholds)
        cause = "memory" if base > capacity else "safety buffer"
        known = least.bound or 0.0
        proven = known >= needed * (1 - STRICT)
        least_words = "at least" if proven else f"at least {math.floor(known)}, and at most"
        what = (
            f"{least_words} {math.ceil(needed)} KV tokens are needed, {base:.0f} of them base "
            f"memory and {math.ceil(needed - base)} buffers, the server has {capacity}"
        )
    scale = _working_scale(search)
    changes = [] if scale is None else [f"multiply all rates by at most {scale}"]
    if math.isfinite(needed):
        block = search.server.block_tokens
        tokens = math.ceil(needed / block) * block
        changes.append(f"raise kv_capacity_tokens to at least {tokens}")
    changes += _segment_change(search)
    changes.append("use policy paced, which needs no whole request at every stage")
    return InfeasibleError(f"Nested WAIT with {scope}: {what}", cause, ", or ".join(changes), scale)


def _working_scale(search: CutSearch) -> float | None:
    """The largest multiple of the rates, below 1, at which there is a table; three digits.

    Chain and memory do not depend on it, so that the least load among them says it.
    """
    slow = replace(search, lengths=search.lengths.scaled(_SLOW), objective="rate")
    load = best_design(slow, _ADVICE_S).value / _SLOW
    return rounded_down((1 - STRICT) / load) if 1 < load < math.inf else None


def _segment_change(search: CutSearch) -> list[str]:
    """The number of segments nearest to the one asked for with which there is a table."""
    if search.segments is None:
        return []
    asked, most = search.segments, search.most
    for count in sorted(range(1, most + 1), key=lambda one: abs(one - asked))[1 : 1 + _NEAREST]:
        if is_feasible(replace(search, segments=count), _ADVICE_S):
            return [f"use {_counted(count)}"]
    return []


def _counted(segments: int) -> str:
    return "1 segment" if segments == 1 else f"{segments} segments"
