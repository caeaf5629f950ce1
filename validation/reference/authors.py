"""The rules of the paper's authors: oracles of `validation.policies.authors`."""

from __future__ import annotations

import math

from validation.reference.core import Queueing
from validation.reference.request import Request


def wait_authors(state: Queueing) -> list[Request]:
    """Everybody advances if some class has enough requests waiting; else nobody does."""
    queues = [
        [one for one in state.waiting if one.class_index == index]
        for index in range(len(state.thresholds))
    ]
    gates = [
        _enough(state, len(queue), limit)
        for queue, limit in zip(queues, state.thresholds, strict=True)
    ]
    if not any(gates):
        return _evict_until_it_fits(state, [])
    batch = _evict_until_it_fits(state, list(state.residents))
    for index, limit in enumerate(state.thresholds):
        queue = [one for one in state.waiting if one.class_index == index]
        if not _admit(state, batch, queue[:limit]):
            break
    return batch


def nested_authors(state: Queueing) -> list[Request]:
    """Segments start in order; everybody in them advances but for those beyond an entry's limit."""
    boundaries = [[one for one in state.residents if one.outputs == cut] for cut in state.cuts[:-1]]
    running = 0
    for queue, limit in zip([state.waiting, *boundaries], state.thresholds, strict=True):
        if not _enough(state, len(queue), limit):
            break
        running += 1
    held_back = [
        one
        for queue, limit in zip(boundaries, state.thresholds[1:], strict=True)
        for one in queue[limit:]
    ]
    batch = [
        one
        for one in state.residents
        if running and one not in held_back and one.outputs < state.cuts[running - 1]
    ]
    batch = _evict_until_it_fits(state, batch)
    if running:
        _admit(state, batch, state.waiting[: state.thresholds[0]])
    return batch


def _room(state: Queueing) -> float:
    return max(float(state.parameters.get("cap", math.inf)) - len(state.residents), 0)


def _enough(state: Queueing, waiting: int, limit: int) -> bool:
    return state.last_has_arrived or waiting >= min(limit, _room(state))


def _admit(state: Queueing, batch: list[Request], queue: list[Request]) -> bool:
    """Admit until the cap is reached; False where memory ends it."""
    for one in queue:
        if _room(state) < 1:
            return True
        need = state.kv_needed(batch) + state.prompt_tokens(one)
        if state.residents and need > state.server.usable_kv_tokens:
            return False
        state.admit(one)
        batch.append(one)
    return True


def _evict_until_it_fits(state: Queueing, batch: list[Request]) -> list[Request]:
    while state.kv_needed(batch) > state.server.usable_kv_tokens:
        victim = state.evict_one()
        batch = [one for one in batch if one is not victim]
    return batch
