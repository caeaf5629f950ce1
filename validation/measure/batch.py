"""An iteration laid out for the device: its decodes first, then chunks of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from validation.measure.kv_cache import KVCache

LENGTH_STEP = 64
"""Decodes attend to the longest length of the batch rounded up to this, as pages would be."""


@dataclass(frozen=True)
class Chunk:
    """Tokens of one request to compute in an iteration.

    Attributes:
        slot: Where its KV lies.
        start: Tokens that the slot already holds.
        tokens: Token numbers, shape (p,).
    """

    slot: int
    start: int
    tokens: Sequence[int]


@dataclass(frozen=True)
class Batch:
    """An iteration of n tokens, padding included.

    Attributes:
        inputs: Number, position and cache row of each token, shape (3, n).
        last: Index of the last token of each seat and of each chunk, shape (seats + chunks,).
        seats: Tokens that attend as decodes; those behind the real ones are padding.
        decode_slots: Slot of each seat, shape (seats,); None where seat i is slot i: then nothing
            is copied.
        decode_length: KV tokens that decode attention reads of each slot.
        prefills: Chunks of prompts, in the order of their tokens.
    """

    inputs: Tensor
    last: Tensor
    seats: int
    decode_slots: Tensor | None
    decode_length: int
    prefills: tuple[Chunk, ...]

    @property
    def width(self) -> int:
        """n."""
        return self.inputs.shape[1]

    @property
    def tokens(self) -> Tensor:
        """Token numbers, shape (n,)."""
        return self.inputs[0]

    @property
    def positions(self) -> Tensor:
        """Tokens of the same request before each, shape (n,)."""
        return self.inputs[1]

    @property
    def rows(self) -> Tensor:
        """Where the cache keeps each token, shape (n,)."""
        return self.inputs[2]

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        slots = None if self.decode_slots is None else self.decode_slots.to(device)
        return replace(
            self, inputs=self.inputs.to(device), last=self.last.to(device), decode_slots=slots
        )


def make_batch(
    cache: KVCache, decodes: Sequence[Chunk], prefills: Sequence[Chunk], padded: bool = False
) -> Batch:
    """Lay out an iteration on the host.

    Args:
        decodes: Chunks of one token each.
        prefills: Chunks of prompts, of any number of tokens.
        padded: Round decodes and tokens up, as `rounded`.
    """
    count = len(decodes)
    seats = min(rounded(count), cache.slots) if padded else count
    ends = seats + np.cumsum([len(one.tokens) for one in prefills], dtype=np.int64)
    computed = int(ends[-1]) if prefills else seats
    inputs = np.zeros((3, rounded(computed) if padded else computed), dtype=np.int64)
    inputs[2] = cache.spare_row
    inputs[0, :count] = [one.tokens[0] for one in decodes]
    inputs[1, :count] = [one.start for one in decodes]
    inputs[2, :count] = [cache.row(one.slot, one.start) for one in decodes]
    for end, one in zip(ends, prefills, strict=True):
        part = inputs[:, end - len(one.tokens) : end]
        part[0] = one.tokens
        part[1] = np.arange(one.start, one.start + len(one.tokens))
        part[2] = cache.row(one.slot, 0) + part[1]
    slots = np.zeros(seats, dtype=np.int64)
    slots[:count] = [one.slot for one in decodes]
    in_place = bool((slots[:count] == np.arange(count)).all())
    longest = max((one.start + 1 for one in decodes), default=0)
    return Batch(
        inputs=torch.from_numpy(inputs),
        last=torch.from_numpy(np.concatenate([np.arange(seats), ends - 1])),
        seats=seats,
        decode_slots=None if in_place else torch.from_numpy(slots),
        decode_length=min(-(-longest // LENGTH_STEP) * LENGTH_STEP, cache.length),
        prefills=tuple(prefills),
    )


def rounded(tokens: int) -> int:
    """Sizes at which batches are padded: 1, 2, 4, multiples of 8, and of 16 from 256 on.

    >>> [rounded(tokens) for tokens in (0, 3, 9, 100, 257)]
    [0, 4, 16, 104, 272]
    """
    if tokens <= 4:
        return (0, 1, 2, 4, 4)[tokens]
    step = 8 if tokens <= 256 else 16
    return -(-tokens // step) * step
