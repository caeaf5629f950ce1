"""Oracles of `validation.policies.wait`: literal WAIT (THEORY 3.1), its valves, and `wait-cap`."""

from __future__ import annotations

import math

from validation.reference.core import Queueing
from validation.reference.request import Request


def wait(state: Queueing) -> list[Request]:
    """Batch min(n_j, requests at the stage) of every stage of every eligible class (THEORY 3.1)."""
    classes = range(len(state.thresholds))
    batch = _batch(state, [_eligible(state, index) for index in classes], admits=True)
    if drains(state, batch):
        return _batch(state, [True for _ in classes], admits=False)
    return batch


def wait_cap(state: Queueing) -> list[Request]:
    """Every class is eligible: the thresholds are upper bounds only."""
    return _batch(state, [True for _ in state.thresholds], admits=True)


def drains(state: Queueing, batch: list[Request]) -> bool:
    """The drain valve: the batch has been empty, with residents, for k iterations' time."""
    k = float(state.parameters.get("drain", 0.0))
    if batch or not state.residents or k == 0:
        state.memory.pop("empty since", None)
        return False
    since_s, tau_s = state.memory.setdefault("empty since", (state.clock_s, state.tau_s))
    if state.clock_s < since_s + k * tau_s:
        state.wake_at_s = min(state.wake_at_s, since_s + k * tau_s)
        return False
    return True


def _eligible(state: Queueing, index: int) -> bool:
    queue = [one for one in state.waiting if one.class_index == index]
    if len(queue) >= state.thresholds[index]:
        return True
    max_wait_s = float(state.parameters.get("max_wait_s", math.inf))
    oldest_s = min((one.arrived_at_s for one in queue), default=math.inf)
    if state.clock_s >= oldest_s + max_wait_s:
        return True
    state.wake_at_s = min(state.wake_at_s, oldest_s + max_wait_s)
    return False


def _batch(state: Queueing, eligible: list[bool], admits: bool) -> list[Request]:
    capacity = state.server.usable_kv_tokens
    batch: list[Request] = []
    taken: dict[tuple[int, int], int] = {}
    for one in state.residents:
        place = (one.class_index, one.stage)
        if eligible[one.class_index] and taken.get(place, 0) < state.thresholds[one.class_index]:
            batch.append(one)
            taken[place] = taken.get(place, 0) + 1
    while state.kv_needed(batch) > capacity:
        victim = state.evict_one()
        batch = [one for one in batch if one is not victim]
    for index, threshold in enumerate(state.thresholds if admits else ()):
        queue = [one for one in state.waiting if one.class_index == index]
        for one in queue[:threshold] if eligible[index] else []:
            need = state.kv_needed(batch) + state.prompt_tokens(one)
            if state.residents and need > capacity:
                return batch
            state.admit(one)
            batch.append(one)
    return batch
