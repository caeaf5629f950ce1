"""Literal WAIT, as in THEORY 3.1: the oracle of `validation.policies.wait`."""

from __future__ import annotations

from validation.reference.core import Queueing, Request


def wait(state: Queueing) -> list[Request]:
    """Batch min(n_j, requests at the stage) of every stage of every eligible class (THEORY 3.1)."""
    queues = [
        [one for one in state.waiting if one.class_index == index]
        for index in range(len(state.thresholds))
    ]
    eligible = [len(queues[i]) >= n for i, n in enumerate(state.thresholds)]
    batch: list[Request] = []
    taken: dict[tuple[int, int], int] = {}
    for one in state.residents:
        place = (one.class_index, one.stage)
        if eligible[one.class_index] and taken.get(place, 0) < state.thresholds[one.class_index]:
            batch.append(one)
            taken[place] = taken.get(place, 0) + 1
    while state.kv_needed(batch) > state.server.usable_kv_tokens:
        victim = state.evict_one()
        batch = [one for one in batch if one is not victim]
    for index, threshold in enumerate(state.thresholds):
        queue = [one for one in state.waiting if one.class_index == index]
        for one in queue[:threshold] if eligible[index] else []:
            need = state.kv_needed(batch) + state.prompt_tokens(one)
            if state.residents and need > state.server.usable_kv_tokens:
                return batch
            state.admit(one)
            batch.append(one)
    return batch
