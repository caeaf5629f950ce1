"""What share of the prompt tokens a prefix cache would not compute again, or did not.

Some traces have a column `cached_tokens` of what the engine found. Others tell by `hash_ids`: one
id per block of prompt tokens, equal for two requests where their prompts are equal up to the end of
that block. The leading blocks of a prompt that some earlier request had are reusable. The ids seen
are kept as a bitmap, so that the memory is bounded: one bit per id, 32 MiB at most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.traces.lines import Columns

MOST_IDS = 1 << 28
"""Ids from here on do not fit the bitmap; the public traces count theirs from 0."""

UNREADABLE = -1
"""An id in place of anything that is no whole number."""

_FEWEST_BYTES = 1 << 16


class Reuse:
    """Counts reusable prompt tokens; see `fluid.traces.lines.Watch`.

    Args:
        block_tokens: Prompt tokens of a block.
    """

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._seen = np.zeros(_FEWEST_BYTES, dtype=np.uint8)
        self._prompt_tokens = self._reusable_tokens = 0
        self._countable = True
        self._any = False

    def see(self, columns: Columns) -> None:
        self._prompt_tokens += int(columns.prompts.sum())
        ids, counts = columns.beside.values, columns.beside.counts
        if len(ids) == 0 or not self._countable:
            return
        self._any = True
        if ids.min() < 0 or ids.max() >= MOST_IDS:
            self._countable = False
            return
        leading = self._leading(self._seen_before(ids), counts)
        reusable = np.minimum(leading * self._block_tokens, columns.prompts)
        self._reusable_tokens += int(reusable.sum())

    def findings(self) -> tuple[str, ...]:
        if not self._any:
            return ()
        if not self._countable:
            return (
                f"hash_ids are not whole numbers from 0 to {MOST_IDS - 1:,}: what share of the"
                " prompt tokens was seen before is not counted, and all are computed",
            )
        share = self._reusable_tokens / max(self._prompt_tokens, 1)
        return (
            f"{100 * share:.3g} % of the prompt tokens were seen before, in blocks of"
            f" {self._block_tokens} tokens: a prefix cache without limit would not compute them"
            " again; in the workload all are computed",
        )

    def _seen_before(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each id came up earlier, here or in a block before; remembers them all."""
        self._make_room(int(ids.max()))
        distinct, first, place = np.unique(ids, return_index=True, return_inverse=True)
        bits = (1 << (distinct & 7)).astype(np.uint8)
        known = (self._seen[distinct >> 3] & bits) > 0
        np.bitwise_or.at(self._seen, distinct >> 3, bits)
        return np.asarray(known[place] | (np.arange(len(ids)) != first[place]))

    def _make_room(self, largest: int) -> None:
        if largest >> 3 >= len(self._seen):
            longer = np.zeros(max(2 * len(self._seen), (largest >> 3) + 1), dtype=np.uint8)
            longer[: len(self._seen)] = self._seen
            self._seen = longer[: MOST_IDS >> 3]

    @staticmethod
    def _leading(seen: NDArray[np.bool_], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many blocks in front of each prompt were seen before."""
        starts = np.cumsum(counts) - counts
        places = np.arange(len(seen)) - np.repeat(starts, counts)
        until = np.where(seen, np.repeat(counts, counts), places)
        leading = np.zeros_like(counts)
        some = counts > 0
        leading[some] = np.minimum.reduceat(until, starts[some])
        return leading


class CachedTokens:
    """Counts the prompt tokens that the engine found; see `fluid.traces.lines.Watch`."""

    column = "cached_tokens"

    def __init__(self) -> None:
        self._requests = self._prompt_tokens = self._cached_tokens = 0
        self._any = False

    def see(self, columns: Columns) -> None:
        cached = columns.beside.values
        if len(cached):
            self._any = True
            over = cached > columns.prompts
            if over.any():
                index = int(np.argmax(over))
                allowed = f"at most the {columns.prompts[index]} tokens of the prompt"
                place = f"request {self._requests + index + 1}: {self.column}"
                raise InputError(place, int(cached[index]), allowed)
        self._requests += len(columns.prompts)
        self._prompt_tokens += int(columns.prompts.sum())
        self._cached_tokens += int(cached.sum())

    def findings(self) -> tuple[str, ...]:
        if not self._any:
            return ()
        share = self._cached_tokens / max(self._prompt_tokens, 1)
        return (
            f"{100 * share:.3g} % of the prompt tokens were found in the engine's prefix cache"
            f" ({self.column}); in the workload all are computed, and a tape does not keep them",
        )
