"""The slow simulator where a batch is formed when the one before it begins, as vLLM does it.

What a batch will have computed is taken for granted when the next one is formed; when it ends, its
tokens are delivered, and who has all its tokens gives back seat and blocks. Where nothing can be
scheduled while a batch runs, its results are awaited.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fluid.server import Server
from validation.reference.core import Queueing, Rule, pass_stage, seconds_of
from validation.reference.request import Request


@dataclass
class Batch:
    """A batch that has been formed.

    Attributes:
        emits: Requests that will have one more token at its end.
        ends: Those of them whose last token it is.
    """

    seconds: float
    emits: list[Request]
    ends: list[Request]

    def deliver(self, state: Queueing, clock_s: float) -> None:
        """Hand out its tokens; a request ends even if it has been preempted since."""
        for one in self.emits:
            if math.isnan(one.first_token_at_s):
                one.first_token_at_s = clock_s
        for one in self.ends:
            one.completed_at_s = clock_s
            (state.residents if one in state.residents else state.waiting).remove(one)


def formed(batch: Sequence[Request], server: Server) -> Batch:
    """Take for granted what the batch will compute."""
    seconds = seconds_of(server, batch)
    emits = [one for one in batch if pass_stage(one, server)]
    return Batch(seconds, emits, [one for one in emits if one.is_over])


def simulate_ahead(
    requests: Sequence[Request],
    server: Server,
    rule: Rule,
    parameters: Mapping[str, Any],
    thresholds: Sequence[int] = (),
    steps: int | None = None,
    cuts: Sequence[int] = (),
) -> list[tuple[float, int]]:
    """As `simulate_slowly`: arguments, result, and the requests that are changed in place."""
    state = Queueing(server, parameters, thresholds, cuts=cuts)
    for one in requests:
        one.stage = one.first_stage
    coming = list(requests)
    running: list[Batch] = []
    clock_s = 0.0
    iterations: list[tuple[float, int]] = []
    while len(iterations) != steps and any(math.isnan(one.completed_at_s) for one in requests):
        while coming and coming[0].arrived_at_s <= clock_s:
            state.waiting.append(coming.pop(0))
        state.clock_s, state.under_way = clock_s, bool(running)
        state.tokens_under_way = running[0].emits if running else ()
        batch = rule(state)
        if batch:
            begins_s = clock_s + sum(one.seconds for one in running)
            iterations.append((begins_s, state.kv_needed(batch)))
            running.append(formed(batch, server))
            if len(running) < 2:
                continue
        elif not running:
            if not coming:
                break
            clock_s = coming[0].arrived_at_s
            continue
        ended = running.pop(0)
        clock_s += ended.seconds
        ended.deliver(state, clock_s)
    for ended in running:
        clock_s += ended.seconds
        ended.deliver(state, clock_s)
    return iterations
