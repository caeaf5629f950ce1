"""Which blocks of tokens the prompts of some requests are made of.

Two requests share the id of a block where their prompts are equal up to the end of it, so that a
prefix cache which holds that block need not compute it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError


@dataclass(frozen=True)
class PromptBlocks:
    """Block ids of n prompts in order, the last block of each perhaps not full.

    Attributes:
        ids: Of all prompts one after the other, shape (total,); not negative.
        counts: How many each prompt has, shape (n,); 0 where nothing is known of it.
        block_tokens: Tokens of a full block.

    Raises:
        InputError: Counts that do not sum to the number of ids, a negative id, or no tokens.

    >>> import numpy as np
    >>> import fluidwait as fw
    >>> blocks = fw.PromptBlocks(np.array([7, 8, 7]), np.array([2, 1]), 16)
    >>> blocks.of(1).tolist()
    [7]
    """

    ids: NDArray[np.int64]
    counts: NDArray[np.int64]
    block_tokens: int

    def __post_init__(self) -> None:
        for name in ("ids", "counts"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64))
        if self.block_tokens < 1:
            raise InputError("block_tokens", self.block_tokens, "at least 1 token")
        if self.counts.min(initial=0) < 0 or self.counts.sum() != len(self.ids):
            raise InputError("counts", int(self.counts.sum()), f"counts of {len(self.ids)} ids")
        if self.ids.min(initial=0) < 0:
            raise InputError("ids", int(self.ids.min()), "ids from 0 on")

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where the ids of each prompt start, shape (n,)."""
        return np.asarray(np.cumsum(self.counts) - self.counts)

    def of(self, request: int) -> NDArray[np.int64]:
        """The ids of one prompt."""
        start = self.starts[request]
        return self.ids[start : start + self.counts[request]]

    def kept(self, which: NDArray[np.bool_]) -> PromptBlocks:
        """The blocks of some of the prompts, those where `which`, shape (n,), is true."""
        if which.all():
            return self
        ids = self.ids[np.repeat(which, self.counts)]
        return PromptBlocks(ids, self.counts[which], self.block_tokens)

    def misfit(self, prompt_tokens: NDArray[np.int64]) -> int | None:
        """The first prompt, shape (n,), whose length its number of blocks does not fit.

        A last block that is not full may have an id or none; no ids at all fit any length.
        """
        full = prompt_tokens // self.block_tokens
        some = -(-prompt_tokens // self.block_tokens)
        wrong = (self.counts > 0) & (self.counts != full) & (self.counts != some)
        return int(np.argmax(wrong)) if wrong.any() else None

    def require_fit(self, prompt_tokens: NDArray[np.int64]) -> None:
        """Refuse prompts whose length the number of their blocks does not fit.

        Raises:
            InputError: Naming the first one.
        """
        if len(self.counts) != len(prompt_tokens):
            allowed = f"one count for each of {len(prompt_tokens)} requests"
            raise InputError("blocks", len(self.counts), allowed)
        index = self.misfit(prompt_tokens)
        if index is not None:
            tokens = int(prompt_tokens[index])
            raise InputError(
                f"blocks[{index}]",
                f"{self.counts[index]} ids",
                fitting(tokens, self.block_tokens),
            )


def fitting(prompt_tokens: int, block_tokens: int) -> str:
    """How many ids a prompt may have, in words."""
    need = -(-prompt_tokens // block_tokens)
    return f"{need} ids, one for each {block_tokens} of the {prompt_tokens} prompt tokens"


def joined(parts: Sequence[PromptBlocks]) -> PromptBlocks:
    """The blocks of several parts of a trace, at least one, one after the other."""
    return PromptBlocks(
        np.concatenate([one.ids for one in parts]),
        np.concatenate([one.counts for one in parts]),
        parts[0].block_tokens,
    )
