"""A slotted KV cache: one slot of fixed length for each request in service."""

from __future__ import annotations

import torch
from torch import Tensor

from validation.measure.shapes import ModelShape


class KVCache:
    """Keys and values of all layers, a row for each token of each slot, and one to spare.

    Attributes:
        rows: (layers, slots · length + 1, 2 · kv_heads, head_dim), keys before values.
        spare_row: Where padding is written.
    """

    def __init__(
        self,
        shape: ModelShape,
        slots: int,
        length: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.slots, self.length, self.spare_row = slots, length, slots * length
        size = (shape.layers, self.spare_row + 1, 2 * shape.kv_heads, shape.head_dim)
        self.rows = torch.zeros(size, device=device, dtype=dtype)

    def row(self, slot: int, position: int) -> int:
        """Where a slot keeps the token at a position."""
        return slot * self.length + position

    def write(self, layer: int, rows: Tensor, keys_values: Tensor) -> None:
        """Store n tokens; (n,) and (n, 2 · kv_heads, head_dim)."""
        self.rows[layer][rows] = keys_values

    def first(self, layer: int, count: int, length: int) -> tuple[Tensor, Tensor]:
        """Of the first `count` slots the first `length` tokens, in place."""
        return keys_and_values(self._slots(layer)[:count, :length])

    def gathered(self, layer: int, slots: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Of the given slots the first `length` tokens, copied."""
        return keys_and_values(self._slots(layer)[slots, :length])

    def prefix(self, layer: int, slot: int, length: int) -> tuple[Tensor, Tensor]:
        """Of one slot the first `length` tokens, in place, (1, kv_heads, length, head_dim)."""
        return keys_and_values(self._slots(layer)[slot : slot + 1, :length])

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a slot to another."""
        source_row, target_row = self.row(source, 0), self.row(target, 0)
        moved = self.rows[:, source_row : source_row + length]
        self.rows[:, target_row : target_row + length] = moved

    def _slots(self, layer: int) -> Tensor:
        """(slots, length, 2 · kv_heads, head_dim)."""
        rows = self.rows[layer, : self.spare_row]
        return rows.view(self.slots, self.length, *rows.shape[1:])


def keys_and_values(slots: Tensor) -> tuple[Tensor, Tensor]:
    """Two of (count, kv_heads, length, head_dim) from (count, length, 2 · kv_heads, head_dim)."""
    keys, values = slots.transpose(1, 2).chunk(2, dim=1)
    return keys, values
