"""Attention of a batch on the KV cache: the one part that tells requests apart.

Decodes attend together, each to its own slot, masked at its own length; each chunk of a prompt
attends to what its slot already holds and causally to itself; the first one to itself alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from validation.measure.batch import Batch, Chunk
from validation.measure.kv_cache import KVCache, keys_and_values
from validation.measure.shapes import ModelShape


class BatchAttention:
    """Attention of one batch, layer by layer; its masks are made once."""

    def __init__(self, shape: ModelShape, batch: Batch, cache: KVCache) -> None:
        self._grouped = shape.kv_heads != shape.heads
        self._batch, self._cache = batch, cache
        positions = batch.positions
        lengths = torch.arange(batch.decode_length, device=positions.device)
        self._decode_mask = (lengths <= positions[: batch.seats, None])[:, None, None]
        self._chunk_masks = [_chunk_mask(one, positions.device) for one in batch.prefills]

    def __call__(self, layer: int, query: Tensor, keys_values: Tensor, out: Tensor) -> None:
        """From queries to mixed values, both (n, heads, head_dim).

        Args:
            keys_values: Of the same tokens, (n, 2 · kv_heads, head_dim).
        """
        batch = self._batch
        if batch.seats:
            out[: batch.seats] = self._decode(layer, query[: batch.seats])
        first = batch.seats
        for chunk, mask in zip(batch.prefills, self._chunk_masks, strict=True):
            last = first + len(chunk.tokens)
            if chunk.start:
                keys, values = self._cache.prefix(
                    layer, chunk.slot, chunk.start + len(chunk.tokens)
                )
            else:
                keys, values = keys_and_values(keys_values[None, first:last])
            out[first:last] = self._prefill(query[first:last], keys, values, mask)
            first = last

    def _decode(self, layer: int, query: Tensor) -> Tensor:
        """One query for each seat against its slot; (seats, heads, head_dim)."""
        batch, cache = self._batch, self._cache
        if batch.decode_slots is None:
            keys, values = cache.first(layer, batch.seats, batch.decode_length)
        else:
            keys, values = cache.gathered(layer, batch.decode_slots, batch.decode_length)
        mixed = functional.scaled_dot_product_attention(
            query[:, :, None], keys, values, attn_mask=self._decode_mask, enable_gqa=self._grouped
        )
        return mixed[:, :, 0]

    def _prefill(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Queries of one chunk against all its slot holds by then; (p, heads, head_dim)."""
        mixed = functional.scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=self._grouped,
        )
        return mixed[0].transpose(0, 1)


def _chunk_mask(chunk: Chunk, device: torch.device) -> Tensor | None:
    """Which tokens of its slot each of a chunk's own may read; None for a plain causal mask."""
    if not chunk.start:
        return None
    ends = torch.arange(chunk.start, chunk.start + len(chunk.tokens), device=device)
    return torch.arange(chunk.start + len(chunk.tokens), device=device) <= ends[:, None]
