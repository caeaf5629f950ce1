"""A server that caches prefixes, slow and obvious: the check of the fluid model of THEORY 10.

Prompts are chains of *pieces*: a shared prefix, what a turn added to a conversation, a block of a
trace. A piece is held while a request in service uses it, and then until its room is needed, least
recently used first, the end of a chain before its start. Memory counts tokens, a piece that several
use once. Admission is greedy and first come first served, prompts are computed whole; where memory
runs out the youngest request is put back, and what it had stays findable like everything else.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fluid.server import Server
from fluid.traces.tape import Tape
from fluid.workload import RequestClass, Workload

Piece = tuple[Hashable, int]


@dataclass
class Request:
    """A prompt in pieces, the last of them its own, to which its output is added."""

    prompt: list[Piece]
    output_tokens: int
    one: RequestClass | None = None
    turns_left: int = 0
    decoded: int = 0
    admitted: bool = False

    @property
    def prompt_tokens(self) -> int:
        return sum(tokens for _, tokens in self.prompt)

    @property
    def name(self) -> str:
        """Of its class."""
        return self.one.name if self.one else "recorded"

    @property
    def known_tokens(self) -> int:
        """Of the prompt and of what was decoded and written."""
        return self.prompt_tokens + self.decoded


@dataclass
class Memory:
    """KV tokens: pieces in use with how many use them, and idle ones by last use."""

    capacity: int
    tokens: dict[Hashable, int] = field(default_factory=dict)
    users: dict[Hashable, int] = field(default_factory=dict)
    idle: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)
    used_tokens: int = 0
    idle_tokens: int = 0

    def found_tokens(self, pieces: list[Piece]) -> int:
        """Of the pieces in front that are there."""
        there = itertools.takewhile(lambda piece: piece[0] in self.tokens, pieces)
        return sum(self.tokens[key] for key, _ in there)

    def take(self, pieces: list[Piece], grown: int) -> None:
        """Use pieces, of which the last one has to have `grown` tokens more."""
        for place, (key, tokens) in enumerate(pieces):
            if key in self.idle:
                del self.idle[key]
                self.idle_tokens -= self.tokens[key]
                self.used_tokens += self.tokens[key]
            elif key not in self.tokens:
                self.tokens[key] = 0
            self.users[key] = self.users.get(key, 0) + 1
            last = place == len(pieces) - 1
            self.grow(key, max(tokens + grown * last - self.tokens[key], 0))

    def give_back(self, pieces: list[Piece]) -> None:
        """Stop to use pieces; the end of the chain is the first to go."""
        for key, _ in reversed(pieces):
            self.users[key] -= 1
            if not self.users[key]:
                del self.users[key]
                self.used_tokens -= self.tokens[key]
                self.idle_tokens += self.tokens[key]
                self.idle[key] = None

    def grow(self, key: Hashable, tokens: int) -> None:
        self.tokens[key] += tokens
        self.used_tokens += tokens

    def would_use(self, pieces: list[Piece], grown: int) -> int:
        """Tokens in use once these pieces are too."""
        new = sum(tokens for key, tokens in pieces if key not in self.users)
        return self.used_tokens + new + grown

    def make_room(self) -> None:
        while self.idle and self.used_tokens + self.idle_tokens > self.capacity:
            key, _ = self.idle.popitem(last=False)
            self.idle_tokens -= self.tokens.pop(key)


@dataclass
class Outcome:
    """What was seen after the warm-up.

    Attributes:
        hit_share: Prompt tokens found ÷ all of first admissions.
        iteration_s: Mean time of an iteration that computes anything.
        again_share: Of all admissions those of requests that were put back, and compute again.
        resident_tokens: KV in use, mean over time.
        waiting: Requests waiting, at equal steps of time.
        turns_per_s: Arrivals of each class, by name, so that a run can be compared with the rates
            that it had.
        ended: Whether the run was not given up with too many waiting.
    """

    hit_share: float
    iteration_s: float
    again_share: float
    resident_tokens: float
    waiting: list[int]
    turns_per_s: dict[str, float]
    ended: bool

    @property
    def stable(self) -> bool:
        """Whether the queue has not grown in the second half."""
        if not self.ended:
            return False
        half = self.waiting[len(self.waiting) // 2 :]
        start, end = np.mean(half[: len(half) // 4]), np.mean(half[-len(half) // 4 :])
        return bool(end < 20 + 1.5 * start)


_GOLDEN = 0.6180339887498949


def arrivals(workload: Workload, rng: random.Random, horizon_s: float) -> Iterator[Any]:
    """(time, order, request) of first turns, sorted."""
    coming: list[Any] = []
    for index, one in enumerate(workload.classes):
        reached = one.conversation.reached if one.conversation else np.ones(1)
        lengths = np.arange(1, len(reached) + 1)
        below = 1 - np.append(reached[1:], 0.0)
        starts = one.rate_per_s / float(reached.sum())
        # A Poisson process, given how often it happens: a run has the rate that it was asked for.
        for serial in range(round(starts * horizon_s)):
            shared: list[Piece] = [(("s", index), one.prefix_tokens)] if one.prefix_tokens else []
            name = (index, serial)
            new = (
                one.conversation.new_tokens
                if one.conversation
                else (one.prefill_tokens - one.prefix_tokens)
            )
            # Spread evenly over their law, so that the turns of a run are near their mean.
            quantile = (serial * _GOLDEN + 0.5) % 1
            turns = int(lengths[min(np.searchsorted(below, quantile), len(lengths) - 1)])
            request = Request([*shared, ((name, 0), new)], one.decode_tokens, one, turns - 1)
            coming.append((rng.uniform(0, horizon_s), name, request))
    return iter(sorted(coming, key=lambda item: item[0]))


def next_turn(request: Request) -> Request:
    """The request that follows in the conversation: all that was said, and a new piece."""
    assert request.one is not None
    assert request.one.conversation is not None
    (name, place), new = request.prompt[-1]  # type: ignore[misc]
    before = [*request.prompt[:-1], ((name, place), new + request.output_tokens)]
    added = ((name, place + 1), request.one.conversation.new_tokens)
    return Request([*before, added], request.output_tokens, request.one, request.turns_left - 1)


def tape_arrivals(tape: Tape) -> Iterator[Any]:
    """Recorded requests: full blocks by id, the rest of a prompt for itself."""
    assert tape.blocks is not None
    block = tape.blocks.block_tokens
    for n, (now_s, prompt, output) in enumerate(
        zip(tape.arrived_at_s, tape.num_prefill_tokens, tape.num_decode_tokens, strict=True)
    ):
        full = int(prompt) // block
        pieces: list[Piece] = [(int(one), block) for one in tape.blocks.of(n)[:full]]
        rest = int(prompt) - sum(tokens for _, tokens in pieces)
        yield float(now_s), n, Request([*pieces, (("rest", n), rest)], int(output))


def flood(one: RequestClass, requests: int, seed: int = 1) -> list[Request]:
    """First turns of new conversations, all there at once."""
    assert one.conversation is not None
    rng, found = random.Random(seed), []
    go_on = 1 - 1 / float(one.conversation.mean_turns)
    for n in range(requests):
        turns = 0
        while rng.random() < go_on:
            turns += 1
        piece = ((("flood", n), 0), one.conversation.new_tokens)
        found.append(Request([piece], one.decode_tokens, one, turns))
    return found


def simulate(
    coming: Iterator[Any],
    server: Server,
    horizon_s: float,
    *,
    warm_up_s: float = 0.0,
    seed: int = 0,
    flooded: Iterable[Request] = (),
    most_waiting: float = math.inf,
    watermark_fraction: float = 0.0,
) -> Outcome:
    """Run a server up to a time.

    Args:
        flooded: Requests that wait at the start.
        most_waiting: The run is given up beyond so many.
        watermark_fraction: Share of the memory that nobody is admitted into.
    """
    rng = random.Random(seed)
    memory = Memory(server.usable_kv_tokens)
    waiting = deque(flooded)
    running: dict[int, Request] = {}
    begun: dict[int, int] = {}
    due: defaultdict[int, list[int]] = defaultdict(list)
    returns: list[Any] = []
    now_s, step, serial, kv_read = 0.0, 0, 0, 0
    hits = prompts = iterations = 0
    admissions = again = 0
    open_tokens = (1 - watermark_fraction) * memory.capacity
    busy_s = held = 0.0
    samples: list[int] = []
    came: Counter[str] = Counter()
    following = next(coming, None)

    def leave(key: int) -> Request:
        """Take a request out of service, with a token for each step but its first."""
        nonlocal kv_read
        request = running.pop(key)
        grown = step - begun.pop(key)
        request.decoded += grown
        memory.tokens[request.prompt[-1][0]] += grown
        kv_read -= request.known_tokens
        memory.give_back(request.prompt)
        return request

    while now_s < horizon_s and len(waiting) <= most_waiting:
        while following is not None and following[0] <= now_s:
            waiting.append(following[2])
            came[following[2].name] += following[0] >= warm_up_s
            following = next(coming, None)
        while returns and returns[0][0] <= now_s:
            at_s, _, request = heapq.heappop(returns)
            waiting.append(request)
            came[request.name] += at_s >= warm_up_s
        decodes = len(running)
        chunks: list[tuple[int, int]] = []
        admitted: list[Request] = []
        while waiting:
            request = waiting[0]
            would = memory.would_use(request.prompt, request.decoded)
            if would + decodes + len(admitted) > open_tokens:
                break
            waiting.popleft()
            # At least one token is computed.
            hit = min(memory.found_tokens(request.prompt), request.known_tokens - 1)
            memory.take(request.prompt, request.decoded)
            memory.make_room()
            chunks.append((request.known_tokens - hit, hit))
            admissions += now_s >= warm_up_s
            again += request.admitted and now_s >= warm_up_s
            if not request.admitted and now_s >= warm_up_s:
                hits += hit
                prompts += request.prompt_tokens
            request.admitted = True
            admitted.append(request)
        if not running and not admitted:
            times = [item[0] for item in (following, *returns[:1]) if item]
            if not times:
                break
            now_s = max(now_s, min(times))
            continue
        kv_read += decodes
        seconds = _seconds(server, chunks, decodes, kv_read)
        now_s += seconds
        step += 1
        memory.used_tokens += decodes
        for request in admitted:
            running[serial] = request
            begun[serial] = step
            due[step + request.output_tokens - 1 - request.decoded].append(serial)
            serial += 1
            kv_read += request.known_tokens
        for key in due.pop(step, ()):
            if key not in running:
                continue
            request = leave(key)
            if request.turns_left:
                think_s = _think_s(request, rng)
                heapq.heappush(returns, (now_s + think_s, serial, next_turn(request)))
                serial += 1
        while memory.used_tokens > memory.capacity and len(running) > 1:
            waiting.appendleft(leave(next(reversed(running))))
        memory.make_room()
        if now_s >= warm_up_s:
            iterations += 1
            busy_s += seconds
            held += seconds * memory.used_tokens
        while len(samples) < 400 * now_s / horizon_s:
            samples.append(len(waiting))
    rates = {name: count / max(now_s - warm_up_s, 1e-9) for name, count in came.items()}
    return Outcome(
        hits / max(prompts, 1),
        busy_s / max(iterations, 1),
        again / max(admissions, 1),
        held / max(busy_s, 1e-9),
        samples,
        rates,
        now_s >= horizon_s,
    )


def _seconds(server: Server, chunks: list[tuple[int, int]], decodes: int, kv_read: int) -> float:
    """τ of prompts, each (computed, found) tokens, and decodes."""
    tau = server.iteration_time
    computed = sum(tokens for tokens, _ in chunks)
    seconds = float(np.interp(computed + decodes, tau.knots.tokens, tau.knots.seconds))
    seconds += tau.last_slope_s * max(computed + decodes - float(tau.knots.tokens[-1]), 0.0)
    seconds += tau.per_decode_request_s * decodes + tau.per_kv_token_s * kv_read
    seconds += tau.per_prefill_token_s * computed
    for tokens, found in chunks:
        seconds += tau.per_prefill_token_sq_s * tokens**2
        seconds += tau.per_prefill_context_token_s * tokens * found
    return seconds


def _think_s(request: Request, rng: random.Random) -> float:
    assert request.one is not None
    talk = request.one.conversation
    assert talk is not None
    if talk.think_time_law == "fixed" or talk.think_time_s == 0:
        return talk.think_time_s
    return rng.expovariate(1 / talk.think_time_s)
