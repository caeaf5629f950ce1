"""The slow, obvious simulator: one object per request, one stage (or chunk of it) per iteration.

It shares no code with the compiled engine and follows THEORY 1.1–1.5 and the policies' rules
word by word; the engine must agree with it request by request. A rule is a plain function of a
`Queueing` state that evicts, admits and returns the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fluid.server import Server
from validation.reference.block_pool import BlockPool
from validation.reference.request import Request


@dataclass
class Queueing:
    """Everything that a rule may look at.

    Attributes:
        waiting: In order of arrival, evicted requests where the eviction rule puts them.
        residents: In order of admission.
        cuts: Output length at which each segment ends.
        tau_s: Duration of the last iteration.
        under_way: Whether an iteration runs whose results the rule does not know yet.
        tokens_under_way: Requests that it gives an output token.
        pool: Of rules that hand out blocks one by one.
        wake_at_s: Set by a rule that wants to be asked again although nothing runs.
        last_has_arrived: Whether nobody is to come any more.
        memory: What a rule keeps from one decision to the next.
    """

    server: Server
    parameters: Mapping[str, Any]
    thresholds: Sequence[int] = ()
    waiting: list[Request] = field(default_factory=list)
    residents: list[Request] = field(default_factory=list)
    credit: float = 1.0
    cuts: Sequence[int] = ()
    clock_s: float = 0.0
    tau_s: float = 0.0
    wake_at_s: float = math.inf
    last_has_arrived: bool = False
    memory: dict[Any, Any] = field(default_factory=dict)
    under_way: bool = False
    tokens_under_way: Sequence[Request] = ()
    pool: BlockPool | None = None

    def kv_needed(self, batch: Sequence[Request]) -> int:
        """KV tokens occupied while `batch` runs and the other residents pause."""
        if self.pool is not None:
            return self.pool.used * self.server.block_tokens
        return sum(
            one.blocks * self.server.block_tokens
            or self.server.block_rounded(one.kv_at_stage if one in batch else one.kv_before_stage)
            for one in self.residents
        )

    def prompt_tokens(self, request: Request) -> int:
        """KV tokens that a waiting request occupies on admission."""
        return self.server.block_rounded(request.kv_at_stage)

    def evict_one(self) -> Request:
        """Evict the victim that the rule names, and requeue it."""
        if self.parameters.get("victim", "last-admitted") == "last-admitted":
            victim = self.residents[-1]
        else:
            victim = max(self.residents, key=lambda one: one.number)
        self.evict(victim)
        return victim

    def evict(self, victim: Request) -> None:
        """Drop its KV and requeue it."""
        self.residents.remove(victim)
        victim.prefilled = victim.blocks = 0
        victim.evictions += 1
        if self.parameters.get("progress", "lost") == "lost":
            victim.stage, victim.outputs, victim.rebuild = victim.first_stage, 0, 0
        elif victim.stage > victim.first_stage:
            victim.rebuild = victim.kv_at_stage - victim.context_tokens
        if self.parameters.get("requeue", "front") == "front":
            self.waiting.insert(0, victim)
        else:
            self.waiting.append(victim)

    def admit(self, request: Request) -> None:
        self.waiting.remove(request)
        self.residents.append(request)


Rule = Callable[[Queueing], list[Request]]


def nobody_sends(ended: Request, ended_at_s: float) -> Request | None:
    """Arrivals that do not depend on the server."""
    return None


@dataclass
class Audience:
    """What requests and their clients do beside arriving.

    Attributes:
        send_next: Function (request that has ended, when) that gives the next one of its client.
        queue_requests, queue_tokens: A request that finds so many waiting is refused.
        requests: How many are sent in all, where clients send more than those given.
    """

    send_next: Callable[[Request, float], Request | None] = nobody_sends
    queue_requests: float = math.inf
    queue_tokens: float = math.inf
    requests: int = 0

    def refuses(self, request: Request, waiting: Sequence[Request]) -> bool:
        """Whether a request that arrives now is turned away."""
        tokens = sum(one.prefill_tokens for one in waiting)
        full = len(waiting) >= self.queue_requests or tokens >= self.queue_tokens
        return full or request.too_long


OPEN = Audience()


@dataclass
class Coming:
    """Requests that are sent and have not arrived, and all that ever were."""

    audience: Audience
    all_sent: list[Request]
    sent: list[Request]
    arrived: int = 0

    @property
    def last_has_arrived(self) -> bool:
        return self.arrived == max(self.audience.requests, len(self.all_sent))

    @property
    def next_at_s(self) -> float:
        return self.sent[0].arrived_at_s if self.sent else math.inf

    def end(self, request: Request, at_s: float) -> None:
        """Let the client of a request that has ended send its next one."""
        following = self.audience.send_next(request, at_s)
        if following is not None:
            following.stage = following.first_stage
            self.all_sent.append(following)
            self.sent.append(following)
            self.sent.sort(key=lambda one: (one.arrived_at_s, one.order))

    def arrive(self, state: Queueing) -> None:
        """Let the next request join the queue, or turn it away."""
        request = self.sent.pop(0)
        request.number = self.arrived
        self.arrived += 1
        if self.audience.refuses(request, state.waiting):
            request.left_at_s = request.arrived_at_s
            self.end(request, request.arrived_at_s)
        else:
            state.waiting.append(request)

    def give_up(self, request: Request, state: Queueing) -> None:
        """Let a client go that has not had its first token.

        A request whose last token is under way keeps seat and blocks until its results are there.
        """
        if not (state.under_way and request.is_over):
            (state.waiting if request in state.waiting else state.residents).remove(request)
        self.leave(request)

    def leave(self, request: Request) -> None:
        """Note that its client has gone."""
        request.left_at_s = request.gives_up_at_s
        self.end(request, request.gives_up_at_s)

    def next_event_s(self, state: Queueing) -> float:
        """When the next request arrives or the next client gives up; inf if none does."""
        leaver = _next_leaver(state)
        return min(self.next_at_s, leaver.gives_up_at_s if leaver else math.inf)

    def happen(self, state: Queueing, clock_s: float) -> None:
        """All arrivals and departures up to now, in order."""
        while True:
            leaver = _next_leaver(state)
            leaves_at_s = leaver.gives_up_at_s if leaver else math.inf
            if min(leaves_at_s, self.next_at_s) > clock_s:
                return
            if leaver and leaves_at_s <= self.next_at_s:
                self.give_up(leaver, state)
            else:
                self.arrive(state)


def _next_leaver(state: Queueing) -> Request | None:
    present = [*state.waiting, *state.residents]
    unanswered = [one for one in present if math.isnan(one.first_token_at_s) and not one.has_ended]
    return min(unanswered, key=lambda one: one.gives_up_at_s, default=None)


def simulate_slowly(
    requests: list[Request],
    server: Server,
    rule: Rule,
    parameters: Mapping[str, Any],
    thresholds: Sequence[int] = (),
    steps: int | None = None,
    cuts: Sequence[int] = (),
    audience: Audience = OPEN,
) -> list[tuple[float, int]]:
    """Run the requests, in order of arrival, to their end; they are changed in place.

    Args:
        requests: Those that clients send later are appended.
        steps: Stop after this many iterations; after the last completion if None.

    Returns:
        Start time and KV tokens held of every iteration.
    """
    state = Queueing(server, parameters, thresholds, cuts=cuts)
    for one in requests:
        one.stage = one.first_stage
    coming = Coming(audience, requests, list(requests))
    clock_s = 0.0
    iterations: list[tuple[float, int]] = []
    while len(iterations) != steps and not all(one.has_ended for one in requests):
        coming.happen(state, clock_s)
        state.clock_s, state.wake_at_s = clock_s, math.inf
        state.last_has_arrived = coming.last_has_arrived
        batch = rule(state)
        if not batch:
            clock_s = min(state.wake_at_s, coming.next_event_s(state))
            if math.isinf(clock_s):
                break
            continue
        iterations.append((clock_s, state.kv_needed(batch)))
        state.tau_s = seconds_of(server, batch)
        clock_s += state.tau_s
        for one in batch:
            if pass_stage(one, server):
                deliver(one, clock_s)
        for one in [one for one in state.residents if one.has_ended]:
            state.residents.remove(one)
            coming.end(one, clock_s)
    return iterations


def seconds_of(server: Server, batch: Sequence[Request]) -> float:
    """τ of a batch."""
    prompts = [one.computes for one in batch if not one.computes_as_decode]
    contexts = [one.cached for one in batch if not one.computes_as_decode]
    decodes = [one for one in batch if one.computes_as_decode]
    seconds = server.iteration_time(
        sum(prompts) + len(decodes),
        kv_tokens=sum(one.cached + 1 for one in decodes),
        prefill_tokens=sum(prompts),
        decode_requests=len(decodes),
        prefill_tokens_sq=sum(tokens**2 for tokens in prompts),
        prefill_context_tokens=sum(p * c for p, c in zip(prompts, contexts, strict=True)),
    )
    return float(seconds)


def pass_stage(one: Request, server: Server) -> bool:
    """Compute what it has in its batch; returns whether that is an output token."""
    if one.computes < one.missing:
        one.prefilled += one.computes
        return False
    emits = one.stage > 0 or server.first_token == "prefill"
    one.stage += 1
    one.rebuild = one.prefilled = 0
    one.outputs += emits
    return emits


def deliver(one: Request, clock_s: float) -> None:
    """Note when an output token came."""
    one.tokens_at_s.append(clock_s)
    if math.isnan(one.first_token_at_s):
        if clock_s > one.gives_up_at_s:
            return  # The token that nobody waits for any more.
        one.first_token_at_s = clock_s
    if one.is_over:
        one.completed_at_s = clock_s
