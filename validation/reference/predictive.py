"""Oracles of the policies that project memory: `mc-sf`, `svf` and `a-min` (THEORY 7)."""

from __future__ import annotations

from collections.abc import Callable

from validation.reference.core import Queueing
from validation.reference.request import Request


def mc_sf(state: Queueing) -> list[Request]:
    """Shortest known output first."""
    return _known_lengths(state, lambda one: one.decode_tokens)


def svf(state: Queueing) -> list[Request]:
    """Smallest KV volume first."""

    def volume(one: Request) -> int:
        context = one.prefill_tokens + one.context_tokens
        first = 0 if one.prefill_tokens else 1
        count = one.decode_tokens + _silent(state, first)
        return sum(state.server.block_rounded(context + first + step) for step in range(count))

    return _known_lengths(state, volume)


def a_min(state: Queueing) -> list[Request]:
    """Everybody is as long as the lower end until proven longer; evict the smallest estimate."""
    estimates: dict[int, float] = state.memory
    lowest = min(float(state.parameters.get("lowest_tokens", 1)), max(state.cuts))

    def estimate(one: Request) -> float:
        return estimates.get(one.number, lowest)

    def iterations(one: Request) -> int:
        return max(int(estimate(one)) - one.outputs, 1) + _silent(state, one.stage)

    while state.kv_needed(state.residents) > state.server.usable_kv_tokens:
        smallest = min(estimate(one) for one in state.residents)
        victim = [one for one in state.residents if estimate(one) == smallest][-1]
        estimates[victim.number] = max(smallest, victim.outputs)
        state.evict(victim)
    for one in sorted(state.waiting, key=estimate):
        if state.residents and not _projection_fits(state, one, iterations):
            break
        state.admit(one)
    return list(state.residents)


def _known_lengths(state: Queueing, key: Callable[[Request], int]) -> list[Request]:
    def iterations(one: Request) -> int:
        return one.decode_tokens - one.outputs + _silent(state, one.stage)

    for one in sorted(state.waiting, key=lambda one: (key(one), one.number)):
        if not _projection_fits(state, one, iterations):
            break
        state.admit(one)
    return list(state.residents)


def _silent(state: Queueing, stage: int) -> int:
    return int(stage == 0 and state.server.first_token == "decode")


def _projection_fits(state: Queueing, new: Request, iterations: Callable[[Request], int]) -> bool:
    """Whether memory suffices in the last iteration of everybody, when it is fullest."""
    everybody = [*state.residents, new]
    for last in {iterations(one) for one in everybody}:
        held = sum(
            state.server.block_rounded(one.kv_at_stage + last - 1)
            for one in everybody
            if iterations(one) >= last
        )
        if held > state.server.usable_kv_tokens:
            return False
    return True
