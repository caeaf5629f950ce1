"""Nested WAIT and segment caps (THEORY 4.1–4.2, 5.3): oracles of `validation.policies.nested`."""

from __future__ import annotations

import math
from collections import Counter

from validation.reference.core import Queueing
from validation.reference.request import Request
from validation.reference.wait import drains


def nested_wait(state: Queueing) -> list[Request]:
    """Segments 1 … k run, k the largest for which all entry queues hold their thresholds."""
    _note_new_places(state)
    running = 0
    while running < len(state.cuts) and _gate_is_open(state, running):
        running += 1
    batch = _batch(state, running)
    if running:
        for one in list(state.waiting[: state.thresholds[0]]):
            if state.residents and not _fits(state, batch, one):
                break
            state.admit(one)
            batch.append(one)
    if drains(state, batch):
        return _batch(state, len(state.cuts))
    return batch


def nested_cap(state: Queueing) -> list[Request]:
    """At most n_k requests of segment k in service, first admitted first."""
    batch: list[Request] = []
    for segment, cap in enumerate(state.thresholds):
        batch += [one for one in state.residents if _segment(state, one) == segment][:cap]
    batch = _evict_until_it_fits(state, batch)
    while (
        state.waiting
        and sum(_segment(state, one) == 0 for one in state.residents) < state.thresholds[0]
        and (not state.residents or _fits(state, batch, state.waiting[0]))
    ):
        batch.append(state.waiting[0])
        state.admit(state.waiting[0])
    return batch


def _segment(state: Queueing, one: Request) -> int:
    return sum(one.outputs >= cut for cut in state.cuts)


def _note_new_places(state: Queueing) -> None:
    """Remember since when each resident has been where it is, and who has crossed its boundary."""
    old = state.memory.get("since", {})
    state.memory["since"] = {}
    for one in state.residents:
        place = (one.number, one.evictions, one.stage)
        state.memory["since"][place] = old.get(place, state.clock_s)


def _entry_queue(state: Queueing, segment: int) -> list[Request]:
    crossed = state.memory.setdefault("crossed", set())
    return [
        one
        for one in state.residents
        if one.outputs == state.cuts[segment - 1]
        and (one.number, one.evictions, one.stage) not in crossed
    ]


def _gate_is_open(state: Queueing, segment: int) -> bool:
    since = state.memory["since"]
    if segment == 0:
        ages = [one.arrived_at_s for one in state.waiting]
    else:
        queue = _entry_queue(state, segment)
        ages = [since[one.number, one.evictions, one.stage] for one in queue]
    if len(ages) >= state.thresholds[segment]:
        return True
    release_s = min(ages, default=math.inf) + float(state.parameters.get("max_wait_s", math.inf))
    if state.clock_s >= release_s:
        return True
    state.wake_at_s = min(state.wake_at_s, release_s)
    return False


def _batch(state: Queueing, running: int) -> list[Request]:
    extra = float(state.parameters.get("boundary_iteration", 0)) > 0
    batch: list[Request] = []
    crossing: list[Request] = []
    taken: Counter[tuple[str, int]] = Counter()
    for one in state.residents:
        segment = _segment(state, one)
        if segment >= running:
            continue
        crosses = extra and segment > 0 and one in _entry_queue(state, segment)
        place = ("boundary", segment) if crosses else ("stage", one.stage)
        taken[place] += 1
        if taken[place] <= state.thresholds[segment]:
            (crossing if crosses else batch).append(one)
    for one in crossing:
        state.memory["crossed"].add((one.number, one.evictions, one.stage))
        state.wake_at_s = state.clock_s
    return _evict_until_it_fits(state, batch)


def _evict_until_it_fits(state: Queueing, batch: list[Request]) -> list[Request]:
    while state.kv_needed(batch) > state.server.usable_kv_tokens:
        victim = state.evict_one()
        batch = [one for one in batch if one is not victim]
    return batch


def _fits(state: Queueing, batch: list[Request], one: Request) -> bool:
    need = state.kv_needed(batch) + state.prompt_tokens(one)
    return need <= state.server.usable_kv_tokens
