"""Greedy admission, as in POLICIES: the oracle of `validation.policies.greedy`."""

from __future__ import annotations

import math

from validation.reference.core import Queueing
from validation.reference.request import Request


def greedy(state: Queueing) -> list[Request]:
    """Everybody advances; admit in order while the prompt fits (cap, pace, watermark)."""
    while state.kv_needed(state.residents) > state.server.usable_kv_tokens:
        state.evict_one()
    pace = float(state.parameters.get("pace", math.inf))
    cap = float(state.parameters.get("cap", math.inf))
    watermark = float(state.parameters.get("watermark", 0.0))
    if state.waiting or state.residents:
        state.credit = min(state.credit + pace, 1 + pace)
    while state.waiting and len(state.residents) < cap:
        head = state.waiting[0]
        need = state.kv_needed(state.residents) + state.prompt_tokens(head)
        fits = need <= state.server.usable_kv_tokens * (1 - watermark)
        if state.residents and not (fits and state.credit >= 1):
            break
        state.admit(head)
        state.credit = max(state.credit - 1, 0.0)
    return list(state.residents)
