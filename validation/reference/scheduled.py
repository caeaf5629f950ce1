"""Nested WAIT under a schedule of thresholds: oracle of `validation.policies.scheduled`."""

from __future__ import annotations

from collections.abc import Sequence

from validation.reference.core import Queueing, Rule
from validation.reference.request import Request


def scheduled(
    starts_s: Sequence[float], period_s: float | None, thresholds: Sequence[Sequence[int]]
) -> Rule:
    """The rule of a schedule whose window i, from `starts_s[i]` on, has `thresholds[i]`."""

    def rule(state: Queueing) -> list[Request]:
        passed_in = state.memory.setdefault("window of the batch", {})
        cycle = int(state.clock_s // period_s) if period_s else 0
        begin_s = cycle * (period_s or 0.0)
        changes = [begin_s + one for one in (*starts_s, *([period_s] if period_s else []))]
        passed = sum(one <= state.clock_s for one in changes[: len(starts_s)])
        now = cycle * len(starts_s) + passed - 1
        if not state.last_has_arrived:
            state.wake_at_s = min(one for one in [*changes, float("inf")] if one > state.clock_s)

        batch: list[Request] = []
        entries = [0, *state.cuts[:-1]]
        window = now
        tagged: dict[tuple[int, int], int] = {}
        for segment, (entry, end) in enumerate(zip(entries, state.cuts, strict=True)):
            inside = [one for one in state.residents if entry <= one.outputs < end]
            at_entry = [one for one in inside if one.outputs == entry] if segment else state.waiting
            if segment and not _single(state, entries[segment - 1], entry):
                near = [
                    passed_in[one.number, one.evictions]
                    for one in state.residents
                    if one.outputs >= entry - 1
                ]
                window = max(near, default=window)
            limit = thresholds[window % len(starts_s)][segment]
            if len(at_entry) < limit:
                break
            if segment:
                tagged |= {(one.number, one.evictions): window for one in at_entry[:limit]}
            held_back = at_entry[limit:] if segment else []
            batch += [one for one in inside if one not in held_back]
        passed_in |= tagged
        runs = len(state.waiting) >= thresholds[now % len(starts_s)][0]
        batch = [one for one in state.residents if one in batch]
        while state.kv_needed(batch) > state.server.usable_kv_tokens:
            victim = state.evict_one()
            batch = [one for one in batch if one is not victim]
        coming = state.waiting[: thresholds[now % len(starts_s)][0]] if runs else []
        for one in list(coming):
            need = state.kv_needed(batch) + state.prompt_tokens(one)
            if state.residents and need > state.server.usable_kv_tokens:
                break
            state.admit(one)
            passed_in[one.number, one.evictions] = now
            batch.append(one)
        return batch

    return rule


def _single(state: Queueing, entry: int, end: int) -> bool:
    """Whether a segment from one entry to the next has a single stage."""
    return end - entry == 1 and (entry > 0 or state.server.first_token == "prefill")
