"""What a table asks of a running engine, and whether it is a table for that engine at all."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

from fluid.errors import InputError
from thresholds.export.view import TableView
from thresholds.fields import TableFields
from thresholds.integrity import expiry
from thresholds.limits import PARAMETER_MEANINGS, Limits
from thresholds.rules import RULES
from thresholds.solvers.nested.rules import RECORDS

FOLLOWED = tuple(name for name, rule in RULES.items() if rule.followed)
"""Policies that a serving system can follow at all."""

PARAMS = (*PARAMETER_MEANINGS, "max_wait_s")
"""Parameters of tables that an engine can follow; each may be absent."""


@dataclass(frozen=True)
class Restraints:
    """What a table asks of one engine.

    Attributes:
        limits: Pace, cap and watermark.
        segment_thresholds: n_k of Nested WAIT or its caps; empty without segments.
        segment_ends: Output tokens l'_k at which each segment ends (THEORY 4.1).
        gated: Whether segments wait until their entry queues hold n_k (literal Nested WAIT).
        max_wait_s: After so long at a gate a request opens it, and requests that are held advance.
    """

    limits: Limits = field(default_factory=Limits)
    segment_thresholds: tuple[int, ...] = ()
    segment_ends: tuple[int, ...] = ()
    gated: bool = False
    max_wait_s: float = math.inf

    def segment_of(self, generated_tokens: int) -> int:
        """Segment, from 0, of a request that has generated so many tokens; the last one beyond."""
        return min(bisect_right(self.segment_ends, generated_tokens), len(self.segment_ends) - 1)

    @property
    def seats(self) -> int:
        """Requests in service when every stage of every segment serves its threshold (THEORY 4.2).

        Those that wait at the gates between segments, one less than it takes, come on top.
        """
        starts = (0, *self.segment_ends[:-1])
        lengths = [end - start for start, end in zip(starts, self.segment_ends, strict=True)]
        served = sum(n * length for n, length in zip(self.segment_thresholds, lengths, strict=True))
        return served + sum(n - 1 for n in self.segment_thresholds[1:])


def restraints_of(table: TableFields, file: str) -> Restraints:
    """The restraints of a table.

    Raises:
        InputError: A policy or parameter that an engine cannot follow.
    """
    view = TableView(table)
    if not view.rule.followed:
        why = "; an engine cannot tell classes that differ in their output lengths"
        raise InputError("policy", table.policy, "one of " + ", ".join(FOLLOWED) + why, file)
    for name in table.params:
        if name not in PARAMS + RECORDS:
            raise InputError(
                f"params.{name}", table.params[name], "only " + ", ".join(PARAMS), file
            )
    thresholds, ends = _segments(table, file) if view.rule.segmented else ((), ())
    return Restraints(
        limits=view.limits,
        segment_thresholds=thresholds,
        segment_ends=ends,
        gated=view.rule.gated,
        max_wait_s=view.max_wait_s,
    )


def doubts(table: TableFields, today: date) -> Iterator[str]:
    """What a table says against itself: an engine follows it all the same, and tells."""
    expired = expiry(table, today)
    if expired:
        yield expired
    for one in table.certificate:
        if not one.holds:
            yield f"its certificate says that {one.condition} fails"
    if table.validated is not None and table.validated.policies[0].verdict == "unstable":
        yield "it was unstable in the simulation that it was validated by"


@dataclass(frozen=True)
class EngineMemory:
    """KV capacity of an engine, in tokens as a table counts them.

    Attributes:
        least_tokens: Where every token of a request takes room in every group of layers.
        most_tokens: What the engine itself reports: requests of its maximal length, of which
            layers with a window keep only the end. One kind of attention: the least as well.
        block_tokens: Tokens of a block.
    """

    least_tokens: int
    most_tokens: int
    block_tokens: int

    @property
    def shown(self) -> str:
        """The capacity in words."""
        if self.most_tokens == self.least_tokens:
            return f"this engine's {self.least_tokens} KV tokens"
        return (
            f"this engine's {self.least_tokens} KV tokens (short requests) to {self.most_tokens} "
            "(of maximal length)"
        )

    def promises(self, kv_tokens: int, tolerance: float) -> bool:
        """Whether requests of any length that hold so many tokens fit."""
        return kv_tokens <= self.least_tokens * (1 + tolerance)


def require_same_server(
    table: TableFields, memory: EngineMemory, tolerance: float, file: str
) -> None:
    """Refuse a table that was solved for another server than this engine.

    Args:
        tolerance: Allowed relative difference of the capacities. Engines measure theirs at every
            start and differ by a few blocks.

    Raises:
        InputError: The capacity, the block size or the first-token convention differs.
    """
    require_first_token(table, file)
    server = table.server
    if server.block_tokens != memory.block_tokens:
        allowed = f"{memory.block_tokens}, the block size of this engine"
        raise InputError("server.block_tokens", server.block_tokens, allowed, file)
    least, most = memory.least_tokens * (1 - tolerance), memory.most_tokens * (1 + tolerance)
    if not least <= server.usable_kv_tokens <= most:
        allowed = f"within {tolerance:.1%} of {memory.shown}"
        raise InputError("server.kv_capacity_tokens", server.kv_capacity_tokens, allowed, file)


def require_first_token(table: TableFields, file: str) -> None:
    """Refuse a table that counts its first output token one stage after the prefill.

    Raises:
        InputError: The server of the table does so; no engine does.
    """
    if table.server.first_token != "prefill":
        allowed = "prefill, as in serving engines"
        raise InputError("server.first_token", table.server.first_token, allowed, file)


def _segments(table: TableFields, file: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Whole thresholds, and increasing ends, of a table with segments."""
    thresholds: list[int] = []
    ends: list[int] = []
    for index, one in enumerate(table.thresholds):
        where = f"thresholds[{index}]"
        if one.up_to_tokens is None or (ends and one.up_to_tokens <= ends[-1]):
            allowed = "a segment end, above that of the segment before"
            raise InputError(f"{where}.up_to_tokens", one.up_to_tokens, allowed, file)
        if one.threshold != int(one.threshold):
            raise InputError(f"{where}.threshold", one.threshold, "whole requests", file)
        thresholds.append(int(one.threshold))
        ends.append(one.up_to_tokens)
    return tuple(thresholds), tuple(ends)
