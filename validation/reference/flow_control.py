"""Per-slot activation caps (THEORY 7): the oracle of `validation.policies.flow_control`."""

from __future__ import annotations

from validation.reference.core import Queueing
from validation.reference.request import Request


def flow_control(state: Queueing) -> list[Request]:
    """Everybody advances; then up to b_k of each class are activated while they fit."""
    while state.kv_needed(state.residents) > state.server.usable_kv_tokens:
        state.evict_one()
    for index, most in enumerate(state.thresholds):
        for one in [one for one in state.waiting if one.class_index == index][:most]:
            need = state.kv_needed(state.residents) + state.prompt_tokens(one)
            if state.residents and need > state.server.usable_kv_tokens:
                return list(state.residents)
            state.admit(one)
    return list(state.residents)
