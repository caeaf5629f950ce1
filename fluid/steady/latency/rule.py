"""How requests enter a batch, as far as latencies depend on it (THEORY 9.3, 9.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fluid.errors import InputError
from fluid.server import Server


@dataclass(frozen=True)
class BatchRule:
    """Whole prompts, or prompts in chunks within a token budget; decodes always run.

    Attributes:
        budget_tokens: Tokens computed per iteration, decodes first; None for whole prompts, as
            many as wait. Who of two prompts comes first within the budget is the order of arrival.
        seats: Most requests in service.
        watermark_fraction: Share of memory that admissions leave free.

    Raises:
        InputError: Naming the field that is out of range.

    >>> import fluidwait as fw
    >>> fw.BatchRule.vllm_v1().budget_tokens
    2048
    """

    budget_tokens: int | None = None
    seats: float = math.inf
    watermark_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.budget_tokens is not None and self.budget_tokens < 1:
            raise InputError("budget_tokens", self.budget_tokens, "at least 1, or None")
        if not self.seats >= 1:
            raise InputError("seats", self.seats, "at least 1")
        if not 0 <= self.watermark_fraction < 1:
            raise InputError("watermark_fraction", self.watermark_fraction, "from 0 to below 1")

    @classmethod
    def greedy(cls, cap: float = math.inf, watermark: float = 0.0) -> BatchRule:
        """Whole prompts as soon as they fit; arguments as of the policy ``greedy``."""
        return cls(None, cap, watermark)

    @classmethod
    def vllm_v1(
        cls,
        max_num_batched_tokens: int = 2048,
        max_num_seqs: float = 256,
        watermark: float = 0.0,
    ) -> BatchRule:
        """vLLM's current scheduler; arguments as of the policy ``vllm-v1``."""
        return cls(max_num_batched_tokens, max_num_seqs, watermark)

    @classmethod
    def sarathi(cls, chunk: int = 512, cap: float = 128, watermark: float = 0.01) -> BatchRule:
        """Sarathi-Serve; arguments as of the policy ``sarathi``.

        It puts every decode before every chunk, vLLM goes by order of admission. As long as the
        decodes leave room for a chunk, which the answer's validity asks for, only the prompt
        admitted last is ever unfinished, so that both orders are the same.
        """
        return cls(chunk, cap, watermark)

    def require_suits(self, server: Server) -> None:
        """Refuse chunks on a server whose prefill emits no token.

        Raises:
            InputError: Naming the convention.
        """
        if self.budget_tokens is not None and server.first_token != "prefill":
            raise InputError(
                "budget_tokens",
                self.budget_tokens,
                'None, as first_token of the server is not "prefill"',
            )
