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
from validation.reference.core import (
    OPEN,
    Audience,
    Coming,
    Queueing,
    Rule,
    pass_stage,
    seconds_of,
)
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

    def deliver(self, state: Queueing, coming: Coming, clock_s: float) -> None:
        """Hand out its tokens to who still waits for them.

        A request ends even if it has been preempted since.
        """
        for one in self.emits:
            if math.isnan(one.first_token_at_s) and clock_s <= one.gives_up_at_s:
                one.first_token_at_s = clock_s
        for one in self.ends:
            (state.residents if one in state.residents else state.waiting).remove(one)
            if one.has_ended:  # Its client has gone.
                continue
            if math.isnan(one.first_token_at_s):
                coming.leave(one)
            else:
                one.completed_at_s = clock_s
                coming.end(one, clock_s)


def formed(batch: Sequence[Request], server: Server) -> Batch:
    """Take for granted what the batch will compute."""
    seconds = seconds_of(server, batch)
    emits = [one for one in batch if pass_stage(one, server)]
    return Batch(seconds, emits, [one for one in emits if one.is_over])


def simulate_ahead(
    requests: list[Request],
    server: Server,
    rule: Rule,
    parameters: Mapping[str, Any],
    thresholds: Sequence[int] = (),
    steps: int | None = None,
    cuts: Sequence[int] = (),
    audience: Audience = OPEN,
) -> list[tuple[float, int]]:
    """As `simulate_slowly`: arguments, result, and the requests that are changed in place."""
    state = Queueing(server, parameters, thresholds, cuts=cuts)
    for one in requests:
        one.stage = one.first_stage
    coming = Coming(audience, requests, list(requests))
    running: list[Batch] = []
    clock_s = 0.0
    iterations: list[tuple[float, int]] = []
    while len(iterations) != steps and not all(one.has_ended for one in requests):
        state.clock_s, state.under_way = clock_s, bool(running)
        coming.happen(state, clock_s)
        state.tokens_under_way = running[0].emits if running else ()
        batch = rule(state)
        if batch:
            begins_s = clock_s + sum(one.seconds for one in running)
            iterations.append((begins_s, state.kv_needed(batch)))
            running.append(formed(batch, server))
            if len(running) < 2:
                continue
        elif not running:
            clock_s = coming.next_event_s(state)
            if math.isinf(clock_s):
                break
            continue
        ended = running.pop(0)
        clock_s += ended.seconds
        ended.deliver(state, coming, clock_s)
    for ended in running:
        clock_s += ended.seconds
        ended.deliver(state, coming, clock_s)
    return iterations
