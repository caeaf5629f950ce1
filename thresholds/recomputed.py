"""A table's figures computed once more, from the workload, server and thresholds beside them.

A file can say anything; what a reader trusts are conditions, memory and a balance that follow from
the rest of it. A condition that fails stays in the table and is printed as failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import get_args

import numpy as np

from fluid.cache.served import served
from fluid.errors import InputError
from fluid.steady.equilibrium import Equilibrium, equilibrium
from thresholds.fields import Condition, TableFields
from thresholds.rules import rule_of
from thresholds.solvers.certificate import condition, stability_condition
from thresholds.solvers.nested.conditions import chain_conditions, drift_condition
from thresholds.solvers.nested.segments import Prompts, Segments, distinct_lengths
from thresholds.solvers.paced.boundary import boundary_load
from thresholds.solvers.wait.batch import Floats, full_batch
from thresholds.solvers.wait.conditions import memory_condition

SAME = 1e-6
"""Difference of two slacks that are one, and relative one of other figures: other versions of numpy
and scipy round differently."""

SAME_EARLIER = 0.02
"""The same in tables before schema 1.5: α* on staircases was found less exactly then."""

BALANCE = ("utilisation", "max_scale", "iteration_time_s", "kv_tokens", "throughput_tokens_per_s")
"""What `predicted` says of the fluid equilibrium."""


def require_recomputed(table: TableFields, file: str) -> None:
    """Refuse a certificate, memory or balance that does not follow from the rest of the table.

    Conditions of simulations, of limits on delays and of earlier versions are not computed again;
    what such a condition says of itself must still agree.

    Raises:
        InputError: Naming the first condition or figure that is another one, or the missing
            stability.
    """
    minor = int(table.schema_version.split(".")[1])
    same = SAME if minor >= 5 else SAME_EARLIER
    balance = equilibrium(served(table.workload, table.server), table.server)
    _require_conditions(table, balance, same, file)
    _require_figures(table, balance, same, file)


def _require_conditions(table: TableFields, balance: Equilibrium, same: float, file: str) -> None:
    found = {one.condition: one for one in _conditions(table, balance)}
    for index, one in enumerate(table.certificate):
        where = f"certificate[{index}]"
        if one.slack and one.holds != (one.slack > 0):
            raise InputError(f"{where}.holds", one.holds, "what its slack says", file)
        again = found.pop(one.condition, None)
        if again is not None and abs(again.slack - one.slack) > same * max(1.0, abs(again.slack)):
            allowed = f"{again.slack:.6g}, as follows from the workload and server in this file"
            raise InputError(f"{where}.slack", one.slack, allowed, file)
    stability = next((text for text in found if text.startswith("fluid stability")), None)
    if stability is not None:
        raise InputError("certificate", "nothing about stability", stability, file)


def _require_figures(table: TableFields, balance: Equilibrium, same: float, file: str) -> None:
    for name in BALANCE:
        given, again = getattr(table.predicted, name), getattr(balance, name)
        if (given is None) != (again is None) or (
            given is not None and not math.isclose(given, again, rel_tol=same)
        ):
            told = "none" if again is None else f"{again:.6g}"
            allowed = f"{told}, as follows from the workload and server in this file"
            raise InputError(f"predicted.{name}", given, allowed, file)
    given, again = table.memory.required_tokens, required_tokens_of(table)
    if again and not any(math.isclose(given, one, rel_tol=same) for one in again):
        allowed = f"{again[0]:.6g}, as follows from the rest of this file"
        raise InputError("memory.required_tokens", given, allowed, file)


def required_tokens_of(table: TableFields) -> list[float]:
    """KV that the thresholds can fill; of segments for each way to count prompts (THEORY 5.4)."""
    workload = served(table.workload, table.server)
    if table.policy == "paced":
        return [boundary_load(workload, table.server).required_tokens]
    if table.policy == "wait":
        return [float(full_batch(workload, table.server).memory(_thresholds(table)))]
    cut = [_segments(table, prompts) for prompts in get_args(Prompts)]
    return [float(one.memory_tokens @ _per_stage(table, one)) for one in cut if one is not None]


def _conditions(table: TableFields, balance: Equilibrium) -> Iterator[Condition]:
    """Conditions of the table's solver that need nothing but the table."""
    server = table.server
    workload = served(table.workload, server)
    yield stability_condition(balance)
    n = _thresholds(table)
    capacity = server.usable_kv_tokens
    if table.policy == "paced":
        edge = boundary_load(workload, server)
        yield condition("memory at the design rate: M* ≤ C", balance.kv_tokens or 0.0, capacity)
        yield condition("memory at the boundary: Σ n^C_j m_j ≤ C", edge.required_tokens, capacity)
    elif table.policy == "wait":
        batch = full_batch(workload, server)
        yield memory_condition(batch, n)
        for one, load in zip(workload.classes, batch.loads(n), strict=True):
            yield condition(f"drift of {one.name}: λΔT(n)/n < 1", float(load), 1.0, strict=True)
    elif rule_of(table.policy).segmented:
        yield from _of_segments(table)


def _thresholds(table: TableFields) -> Floats:
    return np.array([float(one.threshold) for one in table.thresholds])


def _segments(table: TableFields, prompts: Prompts = "worst") -> Segments | None:
    """Those that its thresholds end; None for cuts between lengths, which no solver makes."""
    lengths = distinct_lengths(served(table.workload, table.server), table.server, prompts)
    ends = np.array([one.up_to_tokens or 0 for one in table.thresholds])
    places = np.searchsorted(lengths.outputs, ends)
    if not np.array_equal(lengths.outputs[np.minimum(places, len(lengths.outputs) - 1)], ends):
        return None
    return lengths.segments(places)


def _per_stage(table: TableFields, segments: Segments) -> Floats:
    n = _thresholds(table)
    return n / segments.widths if rule_of(table.policy).caps else n


def _of_segments(table: TableFields) -> Iterator[Condition]:
    rule, segments = rule_of(table.policy), _segments(table)
    if segments is None:
        return
    per_stage = _per_stage(table, segments)
    yield drift_condition(segments, per_stage)
    yield from chain_conditions(segments, per_stage, decreasing=rule.gated)
    memory, capacity = table.memory, table.server.usable_kv_tokens
    needed = memory.required_tokens + memory.buffer_tokens
    texts = (
        ("memory: full caps ≤ C",)
        if rule.caps
        else ("memory: law of the boundary queues ≤ C", "memory: M(n) + buffers ≤ C")
    )
    for text in texts:
        yield condition(text, needed, capacity)
