"""A small serving engine on the real model: admission, batches, KV slots, eviction by recompute.

The rule is `greedy` of `validation/policies/greedy.py` with pace, cap and watermark, evicted
requests keeping their tokens: every resident advances, prompts are computed whole, the last
admitted is evicted first and waits at the front. The simulator runs the same rule on the same tape.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from fluid.errors import InputError
from thresholds.limits import Limits
from thresholds.solvers.paced.solver import Paced
from thresholds.table import ThresholdTable
from validation.measure.batch import Chunk
from validation.measure.kv_cache import KVCache
from validation.measure.runner import Runner


def paced_limits(table: ThresholdTable) -> Limits:
    """The limits of a table of policy paced.

    Raises:
        InputError: Another policy.
    """
    if table.policy != Paced.policy:
        raise InputError("policy", table.policy, Paced.policy)
    return table.limits


def simulated_policy(limits: Limits) -> str:
    """The simulator's policy that follows them."""
    values = [f"watermark={limits.watermark_fraction!r}", "progress=kept"]
    values += [] if limits.cap_requests is None else [f"cap={limits.cap_requests!r}"]
    values += [] if limits.pace_per_iteration is None else [f"pace={limits.pace_per_iteration!r}"]
    return "greedy:" + ",".join(values)


@dataclass
class Request:
    """A request and what became of it; times in seconds, None until they happen."""

    arrived_at_s: float
    prompt: list[int]
    outputs: int
    generated: list[int] = field(default_factory=list)
    computed: int = 0
    slot: int = -1
    evictions: int = 0
    first_token_at_s: float | None = None
    completed_at_s: float | None = None

    @property
    def known(self) -> int:
        """Tokens that exist so far."""
        return len(self.prompt) + len(self.generated)

    def chunk(self) -> Chunk:
        """All tokens that are not in the cache yet."""
        after_prompt = self.computed - len(self.prompt)
        if after_prompt >= 0:
            return Chunk(self.slot, self.computed, self.generated[after_prompt:])
        return Chunk(self.slot, self.computed, self.prompt[self.computed :] + self.generated)


class Engine:
    """Decides and computes one iteration at a time.

    Attributes:
        waiting: In order of service.
        residents: In order of admission; they hold slots 0 … n−1 in some order.
    """

    def __init__(
        self,
        runner: Runner,
        cache: KVCache,
        capacity_tokens: int,
        block: int,
        limits: Limits,
    ) -> None:
        self.runner, self.cache, self.limits = runner, cache, limits
        self.capacity_tokens, self.block = capacity_tokens // block * block, block
        self.waiting: deque[Request] = deque()
        self.residents: list[Request] = []
        self.credit = 1.0
        self.admitted: list[int] = []

    def form_batch(self) -> None:
        """Evict where the residents' growth does not fit, then admit; as the simulator does."""
        need = sum(self._held(one) for one in self.residents)
        while need > self.capacity_tokens:
            need -= self._held(self.residents[-1])
            self._evict()
        pace = self.limits.pace
        if self.waiting or self.residents:
            self.credit = min(self.credit + pace, 1.0 + pace)
        limit = self.capacity_tokens * (1.0 - self.limits.watermark_fraction)
        before = len(self.residents)
        most = min(self.limits.cap, self.cache.slots)
        while self.waiting and len(self.residents) < most:
            held = self._held(self.waiting[0])
            if self.residents and (self.credit < 1.0 or need + held > limit):
                break
            request = self.waiting.popleft()
            request.slot = len(self.residents)
            self.residents.append(request)
            need += held
            self.credit = max(self.credit - 1.0, 0.0)
        self.admitted.append(len(self.residents) - before)

    def run(self) -> list[Request]:
        """Compute all residents, give each its next token; those that are done, removed."""
        by_slot = sorted(self.residents, key=lambda one: one.slot)
        decodes = [one for one in by_slot if one.computed and one.known == one.computed + 1]
        prefills = [one for one in by_slot if not one.computed]
        tokens = self.runner.run(
            [one.chunk() for one in decodes], [one.chunk() for one in prefills]
        )
        for request, token in zip([*decodes, *prefills], tokens, strict=True):
            request.computed = request.known
            request.generated.append(token)
        done = [one for one in self.residents if len(one.generated) == one.outputs]
        for request in done:
            self.residents.remove(request)
            self._free(request)
        return done

    def _held(self, request: Request) -> int:
        return -(-request.known // self.block) * self.block

    def _evict(self) -> None:
        request = self.residents.pop()
        self._free(request)
        request.computed = 0
        request.evictions += 1
        self.waiting.appendleft(request)

    def _free(self, request: Request) -> None:
        """Give a slot back, and move the highest one into the gap, so that reads stay in place."""
        last = max(self.residents, key=lambda one: one.slot, default=request)
        if last.slot > request.slot:
            self.cache.move(last.slot, request.slot, last.computed)
            last.slot = request.slot
        request.slot = -1
