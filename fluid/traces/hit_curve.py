"""How much of a trace's prompts a cache of each size would have held: exact LRU stack distances.

A block's distance is how many distinct blocks were used since its own last use, itself included: it
is found by every cache of at least so many blocks that drops the least recently used one first. A
request looks all of its blocks up and then uses them from the last to the first, so that the end of
a prompt goes before its start, and a block is never found without those before it.

One pass, O(log n) a block: uses stand in a Fenwick tree by time, which is packed when it is full.
Memory grows with the distinct blocks, not with the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.compiled import compiled
from fluid.traces.prompt_blocks import PromptBlocks

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

MOST_BLOCKS = 1 << 23
"""Distinct ones; beyond them the curve is given up, at some 300 MB."""

_FEWEST = 1 << 12
_EMPTY = -1


@dataclass(frozen=True, eq=False)
class HitCurve:
    """Prompt tokens that caches would have found, by cache size.

    Attributes:
        block_tokens: Tokens of a block.
        cache_blocks: Sizes at which a block more makes a difference, rising, shape (n,).
        found_tokens: Prompt tokens found by a cache of that size, shape (n,).
        prompt_tokens: Of all requests.
    """

    block_tokens: int
    cache_blocks: NDArray[np.int64]
    found_tokens: NDArray[np.float64]
    prompt_tokens: int

    @property
    def reusable_share(self) -> float:
        """Share of the prompt tokens that a cache without limit finds."""
        return self.share(np.inf)

    def share(self, cache_tokens: float) -> float:
        """Share of the prompt tokens that a cache of so many tokens finds."""
        blocks = cache_tokens / self.block_tokens
        place = int(np.searchsorted(self.cache_blocks, blocks, side="right"))
        return float(self.found_tokens[place - 1]) / self.prompt_tokens if place else 0.0

    def points(self, shares: Sequence[float] = (0.25, 0.5, 0.75, 0.9, 1.0)) -> list[Any]:
        """(cache tokens, prompt tokens found) where these parts of what is reusable are found."""
        if len(self.cache_blocks) == 0:
            return []
        wanted = np.array(shares) * self.found_tokens[-1] * (1 - 1e-12)
        places = np.unique(np.searchsorted(self.found_tokens, wanted))
        return [
            (int(self.cache_blocks[one]) * self.block_tokens, float(self.found_tokens[one]))
            for one in places
        ]


class StackDistances:
    """Takes in prompts in order and tells the hit curve of what it has seen."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._keys = np.full(2 * _FEWEST, _EMPTY, dtype=np.int64)
        self._last = np.zeros(2 * _FEWEST, dtype=np.int64)
        self._tree = np.zeros(2 * _FEWEST + 1, dtype=np.int64)
        self._now = self._distinct = 0
        self._found = np.zeros(_FEWEST, dtype=np.float64)
        self._prompt_tokens = 0
        self._given_up = False

    def see(self, blocks: PromptBlocks, prompt_tokens: NDArray[np.int64]) -> None:
        """Take in prompts of these lengths, shape (n,)."""
        self._prompt_tokens += int(prompt_tokens.sum())
        start, starts = 0, blocks.starts
        while start < len(prompt_tokens) and not self._given_up:
            self._make_room(int(blocks.counts[start]))
            start, self._now, self._distinct = _seen(
                blocks.ids,
                starts,
                blocks.counts,
                prompt_tokens,
                start,
                self._block_tokens,
                self._keys,
                self._last,
                self._tree,
                self._now,
                self._distinct,
                self._found,
            )

    def curve(self) -> HitCurve | None:
        """The curve of all prompts so far; None where there were too many blocks."""
        if self._given_up or self._prompt_tokens == 0:
            return None
        sizes = np.flatnonzero(self._found)
        return HitCurve(
            self._block_tokens,
            sizes,
            np.cumsum(self._found[sizes]),
            self._prompt_tokens,
        )

    def _make_room(self, more: int) -> None:
        """Room for a prompt of so many blocks: in the table, in time and in the distances."""
        need = self._distinct + more
        if need > MOST_BLOCKS:
            self._given_up = True
            return
        if 2 * need > len(self._keys):
            size = 1 << (4 * need - 1).bit_length()
            keys, last = np.full(size, _EMPTY, dtype=np.int64), np.zeros(size, dtype=np.int64)
            _move(self._keys, self._last, keys, last)
            self._keys, self._last = keys, last
        if need >= len(self._found):
            longer = np.zeros(1 << (2 * need).bit_length())
            longer[: len(self._found)] = self._found
            self._found = longer
        if self._now + more >= len(self._tree):
            used = np.flatnonzero(self._keys != _EMPTY)
            order = used[np.argsort(self._last[used])]
            self._last[order] = np.arange(1, len(order) + 1)
            self._tree = np.zeros(max(4 * need, 2 * _FEWEST) + 1, dtype=np.int64)
            self._now = len(order)
            _filled(self._tree, self._now)


@compiled(from_python=False)
def _slot(keys, key):
    """Where a key is, or would be."""
    mask = len(keys) - 1
    place = (key * -7046029254386353131) & mask
    place = (place ^ (place >> 17)) & mask
    while keys[place] != _EMPTY and keys[place] != key:
        place = (place + 1) & mask
    return place


@compiled()
def _move(keys, last, new_keys, new_last):
    """Put all entries of a table into an empty larger one."""
    for place in range(len(keys)):
        if keys[place] != _EMPTY:
            to = _slot(new_keys, keys[place])
            new_keys[to] = keys[place]
            new_last[to] = last[place]


@compiled()
def _filled(tree, uses):
    """A Fenwick tree with a use at each of the times 1 … `uses`."""
    for place in range(1, len(tree)):
        tree[place] += 1 if place <= uses else 0
        above = place + (place & -place)
        if above < len(tree):
            tree[above] += tree[place]


@compiled(from_python=False)
def _add(tree, place, change):
    while place < len(tree):
        tree[place] += change
        place += place & -place


@compiled(from_python=False)
def _sum(tree, place):
    total = 0
    while place > 0:
        total += tree[place]
        place -= place & -place
    return total


@compiled()
def _seen(ids, starts, counts, prompt_tokens, start, block, keys, last, tree, now, distinct, found):
    """Requests from `start` on, until there is no room; returns where, the time, the blocks."""
    for request in range(start, len(counts)):
        count = counts[request]
        full = now + count >= len(tree) or distinct + count >= len(found)
        if full or 2 * (distinct + count) > len(keys):
            return request, now, distinct
        begin = starts[request]
        for place in range(count):
            slot = _slot(keys, ids[begin + place])
            if keys[slot] == _EMPTY:
                break
            distance = distinct - _sum(tree, last[slot] - 1)
            found[distance] += min(block, prompt_tokens[request] - place * block)
        for place in range(count - 1, -1, -1):
            slot = _slot(keys, ids[begin + place])
            now += 1
            if keys[slot] == _EMPTY:
                keys[slot] = ids[begin + place]
                distinct += 1
            else:
                _add(tree, last[slot], -1)
            last[slot] = now
            _add(tree, now, 1)
    return len(counts), now, distinct
