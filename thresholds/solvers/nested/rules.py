"""What tables with segments mean (THEORY 4.2, 5.3)."""

from __future__ import annotations

from collections.abc import Sequence

from fluid.server import Server
from fluid.workload import RatePiece, Workload
from thresholds.fields import Condition, TableFields
from thresholds.solvers.nested.hand_over import arrivals_over_windows, memory_over_windows
from thresholds.solvers.rule import Rule

RECORDS = (
    "segments",
    "horizon_s",
    "overflow_probability",
    "deterministic_buffer_tokens",
    "stochastic_buffer_tokens",
    "eta",
)
"""Parameters by which tables before schema 1.2 say how they were found; nothing to follow."""


class NestedWaitRule(Rule):
    """A segment waits until n_k requests stand before it, then serves n_k of each stage."""

    policy = "nested-wait"
    followed = True
    segmented = True
    gated = True
    whole = True
    params = ("max_wait_s", *RECORDS)
    meaning = "requests of each stage served at once"

    def hand_over(
        self, workload: Workload, server: Server, tables: Sequence[TableFields]
    ) -> Condition | None:
        """M(max n) + buffers ≤ C, if the windows have the same cuts."""
        return memory_over_windows(server, tables)

    def arrivals_at_hand_overs(
        self, server: Server, tables: Sequence[TableFields], is_periodic: bool
    ) -> Condition | None:
        """A(t, ΔT) < n_1 while residents of two windows are served."""
        return arrivals_over_windows(server, tables, is_periodic)

    def lull_notes(
        self, table: TableFields, piece: RatePiece, end_s: float | None
    ) -> tuple[str, ...]:
        """Bounded delay needs n_1 arrivals in bounded time."""
        if piece.multiplier == 0:
            return (
                "nothing arrives: literal Nested WAIT stands still, and who is in service waits",
            )
        return ()


class NestedCapRule(Rule):
    """At most so many requests of each segment are served; nobody waits for others."""

    policy = "nested-cap"
    followed = True
    segmented = True
    caps = True
    whole = True
    params = ("cap_requests", *RECORDS)
    meaning = "requests of the segment served at once"
