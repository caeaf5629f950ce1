"""What a table of one policy means to whoever prints, schedules or serves it.

Each solver has the rule of its tables in its room; `thresholds.rules` lists them. They import
nothing of the solvers, so that a serving engine can follow a table without their libraries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fluid.server import Server
from fluid.workload import RatePiece, Workload
from thresholds.fields import Condition, TableFields, Threshold


class Rule:
    """A policy that the toolkit knows nothing about: only the parameters of its table speak.

    Attributes:
        policy: Its name in tables.
        followed: Whether a serving system can follow it at all.
        segmented: Whether thresholds are of segments of output length.
        gated: Whether requests wait until so many are there (literal Nested WAIT).
        caps: Whether thresholds cap the requests in service.
        whole: Whether thresholds are whole requests.
        params: Names of the parameters that its tables may have.
        meaning: What a threshold counts, in words; "" where it sets nothing by itself.
    """

    policy: ClassVar[str] = ""
    followed: ClassVar[bool] = False
    segmented: ClassVar[bool] = False
    gated: ClassVar[bool] = False
    caps: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    params: ClassVar[tuple[str, ...]] = ()
    meaning: ClassVar[str] = ""

    def shown_name(self, threshold: Threshold) -> str:
        """A threshold's name where it is printed."""
        if threshold.up_to_tokens is None:
            return f"threshold of {threshold.name}"
        return f"{threshold.name}, up to output token {threshold.up_to_tokens}"

    def hand_over(
        self, workload: Workload, server: Server, tables: Sequence[TableFields]
    ) -> Condition | None:
        """What must hold of KV between the tables of a schedule, if anything."""
        return None

    def arrivals_at_hand_overs(
        self, server: Server, tables: Sequence[TableFields], is_periodic: bool
    ) -> Condition | None:
        """Whether A(t, ΔT) < n holds at hand-overs too (THEORY 5.1), where it has a meaning.

        Args:
            is_periodic: Whether the first table follows the last.
        """
        return None

    def lull_notes(
        self, table: TableFields, piece: RatePiece, end_s: float | None
    ) -> tuple[str, ...]:
        """What a window of a schedule means to requests that wait for others."""
        return ()
