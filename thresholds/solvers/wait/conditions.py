"""Memory of literal WAIT as a table and its certificate have it (THEORY 3.2, 3.7)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fluid.errors import InfeasibleError
from thresholds.fields import Condition, Memory
from thresholds.solvers.certificate import condition
from thresholds.solvers.wait.batch import Floats, FullBatch

NOT_SERVED = "no serving system can express literal WAIT"

TO_PACED = "use policy paced, which needs no whole request at every stage"


def wait_memory(batch: FullBatch, thresholds: Floats) -> Memory:
    """M(n): from an empty start KV stays below it on every path (THEORY 3.7)."""
    return Memory(
        required_tokens=float(batch.memory(thresholds)),
        buffer_tokens=0.0,
        capacity_tokens=batch.server.usable_kv_tokens,
        overflow_probability=0.0,
    )


def memory_condition(batch: FullBatch, thresholds: Floats) -> Condition:
    """Σ n_j m_j ≤ C (THEORY 3.2)."""
    needed = float(batch.memory(thresholds))
    return condition("memory: Σ n_j m_j ≤ C", needed, batch.server.usable_kv_tokens)


def too_little_memory(
    batch: FullBatch,
    least: Floats | None,
    changes: Sequence[str] = (),
    max_scale: float | None = None,
) -> InfeasibleError:
    """The error of least whole thresholds that do not fit, or do not exist (drift).

    Args:
        changes: What would help beside more memory.
    """
    cause, needed = "drift", "unbounded"
    if least is not None:
        tokens = float(batch.memory(least))
        cause, needed = "memory", f"{tokens:.0f}"
        changes = (f"raise kv_capacity_tokens to at least {math.ceil(tokens)}", *changes)
    return InfeasibleError(
        f"literal WAIT needs whole thresholds with {needed} KV tokens, the server has "
        f"{batch.server.usable_kv_tokens}",
        cause,
        ", or ".join([*changes, TO_PACED]),
        max_scale,
    )
