"""A table's certificate computed once more, from the workload, server and thresholds beside it.

A file can say anything; what a reader trusts are conditions that follow from the rest of it. One
that fails stays in the table and is printed as failed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fluid.cache.served import served
from fluid.errors import InputError
from fluid.steady.equilibrium import equilibrium
from thresholds.fields import Condition, TableFields
from thresholds.rules import rule_of
from thresholds.solvers.certificate import condition, stability_condition
from thresholds.solvers.nested.conditions import chain_conditions, drift_condition
from thresholds.solvers.nested.segments import distinct_lengths
from thresholds.solvers.paced.boundary import boundary_load
from thresholds.solvers.wait.batch import Floats, full_batch
from thresholds.solvers.wait.conditions import memory_condition

SAME_SLACK = 1e-6
"""Difference of two slacks that are one: other versions of numpy and scipy round differently."""

EARLIER_SLACK = 0.02
"""The same in tables before schema 1.5: α* on staircases was found less exactly then."""


def require_certificate(table: TableFields, file: str) -> None:
    """Refuse a certificate that does not follow from the rest of the table.

    Conditions of simulations, of limits on delays and of earlier versions are not computed again;
    what such a condition says of itself must still agree.

    Raises:
        InputError: Naming the first condition that is another one, or the missing stability.
    """
    found = {one.condition: one for one in _conditions(table)}
    minor = int(table.schema_version.split(".")[1])
    same = SAME_SLACK if minor >= 5 else EARLIER_SLACK
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


def _conditions(table: TableFields) -> Iterator[Condition]:
    """Conditions of the table's solver that need nothing but the table."""
    server = table.server
    workload = served(table.workload, server)
    balance = equilibrium(workload, server)
    yield stability_condition(balance)
    n = np.array([float(one.threshold) for one in table.thresholds])
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
        yield from _of_segments(table, n)


def _of_segments(table: TableFields, n: Floats) -> Iterator[Condition]:
    rule = rule_of(table.policy)
    lengths = distinct_lengths(served(table.workload, table.server), table.server)
    ends = np.array([one.up_to_tokens or 0 for one in table.thresholds])
    places = np.searchsorted(lengths.outputs, ends)
    if not np.array_equal(lengths.outputs[np.minimum(places, len(lengths.outputs) - 1)], ends):
        return  # cuts between lengths: nothing that our solvers make
    segments = lengths.segments(places)
    per_stage = n / segments.widths if rule.caps else n
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
