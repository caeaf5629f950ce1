"""One request of the slow simulator, as it passes its stages."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class Request:
    """A request as it passes its stages.

    Attributes:
        stage: The stage it will pass next; 0 is prefill.
        outputs: Output tokens generated so far.
        rebuild: KV tokens that its next stage has to compute anew after an eviction that kept its
            progress; 0 otherwise.
        chunk: Prompt tokens that a rule lets it compute in this iteration; None for all of them.
        prefilled: Prompt tokens that earlier chunks of this stage have computed.
        blocks: Blocks allocated to it, for rules that allocate by block; 0 for the others.
        order: Of clients that send at the same time.
        gives_up_at_s: Unless its first token has come by then.
        too_long: Whether it is refused whatever waits.
        left_at_s: When it was refused or gave up.
        tokens_at_s: When its output tokens came, those that it generated again included.
        priority: The smaller, the earlier it goes, for rules with priorities.
        content: What its first full blocks hold, prompt and outputs alike: equal where everything
            up to the end of the block is equal. Blocks beyond are its own.
    """

    number: int
    arrived_at_s: float
    class_index: int
    prefill_tokens: int
    context_tokens: int
    decode_tokens: int
    stage: int = 0
    outputs: int = 0
    rebuild: int = 0
    chunk: int | None = None
    prefilled: int = 0
    blocks: int = 0
    first_token_at_s: float = math.nan
    completed_at_s: float = math.nan
    evictions: int = 0
    order: int = 0
    gives_up_at_s: float = math.inf
    too_long: bool = False
    left_at_s: float = math.nan
    tokens_at_s: list[float] = field(default_factory=list)
    priority: int = 0
    content: Sequence[Hashable] = ()

    @property
    def has_ended(self) -> bool:
        """Whether it is completed, refused or given up."""
        return not (math.isnan(self.completed_at_s) and math.isnan(self.left_at_s))

    @property
    def is_over(self) -> bool:
        """Whether all its tokens are computed, or under way."""
        return self.outputs == self.decode_tokens

    @property
    def first_stage(self) -> int:
        """Decode-only requests (THEORY 5.5) start at stage 1."""
        return 0 if self.prefill_tokens else 1

    @property
    def kv_at_stage(self) -> int:
        """l + s tokens while it passes stage s (THEORY 1.2)."""
        return self.prefill_tokens + self.context_tokens + self.stage

    @property
    def kv_before_stage(self) -> int:
        """What it holds while it is paused."""
        return self.kv_at_stage - 1

    @property
    def is_prefill(self) -> bool:
        """Whether the next stage computes more than one token."""
        return self.stage == 0 or self.rebuild > 0

    @property
    def missing(self) -> int:
        """Tokens to compute before its next output."""
        return (self.rebuild or self.prefill_tokens) - self.prefilled if self.is_prefill else 1

    @property
    def cached(self) -> int:
        """Its KV tokens in memory."""
        return self.context_tokens + self.prefilled if self.is_prefill else self.kv_before_stage

    @property
    def computes(self) -> int:
        """Tokens that it computes in this iteration."""
        return self.missing if self.chunk is None else self.chunk

    @property
    def computes_as_decode(self) -> bool:
        """One token behind a whole prompt is a decode to the hardware, whatever it is for."""
        return self.computes == 1 and self.cached >= self.prefill_tokens + self.context_tokens
