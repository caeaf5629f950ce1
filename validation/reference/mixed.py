"""Mixed batches under a token budget: oracles of `validation.policies.mixed` (THEORY 7)."""

from __future__ import annotations

from collections.abc import Iterable

from validation.reference.core import Queueing
from validation.reference.request import Request


def dai(state: Queueing) -> list[Request]:
    """Decodes, prompts begun, new prompts: as many tokens as the budget allows."""
    _make_room(state)
    batch = _Batch(state)
    batch.take(one for one in state.residents if _decodes(one))
    batch.take(one for one in state.residents if not _decodes(one))
    batch.admit(state.waiting)
    return batch.chosen


def slai(state: Queueing) -> list[Request]:
    """Due decodes, prompts begun, new prompts by length, other decodes."""
    last_token_s: dict[int, float] = state.memory.setdefault("last token", {})
    for one in state.memory.get("batch", []):
        last_token_s[one.number] = state.clock_s
    _make_room(state)
    target_s = float(state.parameters.get("tbt_target_s", 0.1))
    decodes = [one for one in state.residents if _decodes(one)]
    two_later_s = state.clock_s + 2 * state.tau_s
    due = [one for one in decodes if last_token_s[one.number] + target_s < two_later_s]
    batch = _Batch(state)
    batch.take(due)
    batch.take(one for one in state.residents if not _decodes(one))
    batch.admit(sorted(state.waiting, key=lambda one: one.prefill_tokens + one.context_tokens))
    batch.take(one for one in decodes if one not in due)
    state.memory["batch"] = batch.chosen
    return batch.chosen


class _Batch:
    """A batch that grows until its budget is spent."""

    def __init__(self, state: Queueing) -> None:
        self.state = state
        self.budget = int(state.parameters.get("budget_tokens", 512))
        self.chosen: list[Request] = []

    def take(self, group: Iterable[Request]) -> None:
        for one in group:
            if self.budget > 0:
                one.chunk = min(one.missing, self.budget)
                self.budget -= one.chunk
                self.chosen.append(one)

    def admit(self, queue: list[Request]) -> None:
        state = self.state
        for one in list(queue):
            need = state.kv_needed([]) + state.prompt_tokens(one)
            fits = not state.residents or need <= state.server.usable_kv_tokens
            if self.budget == 0 or not fits:
                break
            state.admit(one)
            _reserve(state)
            self.take([one])


def _decodes(one: Request) -> bool:
    return one.missing == 1 and one.cached >= one.prefill_tokens + one.context_tokens


def _reserve(state: Queueing) -> None:
    """Everybody occupies all it will hold at its next stage."""
    block = state.server.block_tokens
    for one in state.residents:
        one.blocks = -(-one.kv_at_stage // block)


def _make_room(state: Queueing) -> None:
    _reserve(state)
    while state.kv_needed([]) > state.server.usable_kv_tokens:
        state.evict_one()
