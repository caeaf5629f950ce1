"""A slotted KV cache: one slot of fixed length for each request in service."""

from __future__ import annotations

import torch
from torch import Tensor

from validation.measure.shapes import ModelShape


class KVCache:
    """Keys and values of all layers, each of (layers, slots, kv_heads, length, head_dim)."""

    def __init__(
        self,
        shape: ModelShape,
        slots: int,
        length: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        size = (shape.layers, slots, shape.kv_heads, length, shape.head_dim)
        self.slots, self.length = slots, length
        self.keys = torch.zeros(size, device=device, dtype=dtype)
        self.values = torch.zeros(size, device=device, dtype=dtype)

    def write(
        self, layer: int, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor
    ) -> None:
        """Store n tokens; keys and values (n, kv_heads, head_dim)."""
        self.keys[layer][slots, :, positions] = keys
        self.values[layer][slots, :, positions] = values

    def first(self, layer: int, count: int, length: int) -> tuple[Tensor, Tensor]:
        """Of the first `count` slots the first `length` tokens, in place."""
        return self.keys[layer, :count, :, :length], self.values[layer, :count, :, :length]

    def gathered(self, layer: int, slots: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Of the given slots the first `length` tokens, copied."""
        return self.keys[layer, slots, :, :length], self.values[layer, slots, :, :length]

    def prefix(self, layer: int, slot: int, length: int) -> tuple[Tensor, Tensor]:
        """Of one slot the first `length` tokens, in place, (1, kv_heads, length, head_dim)."""
        one = slice(slot, slot + 1)
        return self.keys[layer, one, :, :length], self.values[layer, one, :, :length]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a slot to another."""
        for part in (self.keys, self.values):
            part[:, target, :, :length] = part[:, source, :, :length]
