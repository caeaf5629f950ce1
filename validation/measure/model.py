"""A compact Llama decoder on a slotted KV cache: one iteration computes a mixed batch.

What a serving engine's iteration does, at exact dimensions: every token of the batch, prompts and
decodes alike, goes through the same matrix products; only attention tells requests apart. Decodes
attend together, each to its own slot, masked at its own length; each chunk of a prompt attends to
what its slot already holds and causally to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from validation.measure.kv_cache import KVCache
from validation.measure.shapes import ModelShape

# mypy: disable-error-code="misc, no-untyped-call"

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


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        width, grouped = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, width, bias=False)
        self.k_proj = nn.Linear(shape.hidden, grouped, bias=False)
        self.v_proj = nn.Linear(shape.hidden, grouped, bias=False)
        self.o_proj = nn.Linear(width, shape.hidden, bias=False)

    def forward(self, hidden: Tensor, batch: Batch, layer: int, cache: KVCache) -> Tensor:
        """Attend and write K and V of all tokens; hidden (n, hidden)."""
        shape = self.shape
        query = self.q_proj(hidden).view(-1, shape.heads, shape.head_dim)
        key = self.k_proj(hidden).view(-1, shape.kv_heads, shape.head_dim)
        value = self.v_proj(hidden).view(-1, shape.kv_heads, shape.head_dim)
        query, key = batch.rotate(query), batch.rotate(key)
        cache.write(layer, batch.slots, batch.positions, key, value)
        parts = []
        if batch.decodes:
            parts.append(self._decode(query[: batch.decodes], batch, layer, cache))
        first = batch.decodes
        for chunk in batch.prefills:
            last = first + len(chunk.tokens)
            parts.append(self._prefill(query[first:last], chunk, layer, cache))
            first = last
        mixed: Tensor = self.o_proj(torch.cat(parts).flatten(1))
        return mixed

    def _decode(self, query: Tensor, batch: Batch, layer: int, cache: KVCache) -> Tensor:
        """One query for each request against its slot; (b, heads, head_dim)."""
        if batch.decodes_in_place:
            keys, values = cache.first(layer, batch.decodes, batch.decode_length)
        else:
            slots = batch.slots[: batch.decodes]
            keys, values = cache.gathered(layer, slots, batch.decode_length)
        out = functional.scaled_dot_product_attention(
            query[:, :, None], keys, values, attn_mask=batch.decode_mask, enable_gqa=self._grouped
        )
        return out[:, :, 0]

    def _prefill(self, query: Tensor, chunk: Chunk, layer: int, cache: KVCache) -> Tensor:
        """Queries of one chunk against its slot up to the chunk's own end; (p, heads, head_dim)."""
        count = len(chunk.tokens)
        keys, values = cache.prefix(layer, chunk.slot, chunk.start + count)
        mask = None
        if chunk.start:
            ends = torch.arange(chunk.start, chunk.start + count, device=query.device)
            mask = torch.arange(chunk.start + count, device=query.device) <= ends[:, None]
        out = functional.scaled_dot_product_attention(
            query.transpose(0, 1)[None],
            keys,
            values,
            attn_mask=mask,
            is_causal=mask is None,
            enable_gqa=self._grouped,
        )
        return out[0].transpose(0, 1)

    @property
    def _grouped(self) -> bool:
        return self.shape.kv_heads != self.shape.heads


class Layer(nn.Module):
    """Attention and SwiGLU, each after an RMS norm and around a residual."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.mlp = nn.ModuleDict(
            {
                "gate_proj": nn.Linear(shape.hidden, shape.mlp, bias=False),
                "up_proj": nn.Linear(shape.hidden, shape.mlp, bias=False),
                "down_proj": nn.Linear(shape.mlp, shape.hidden, bias=False),
            }
        )

    def forward(self, hidden: Tensor, batch: Batch, layer: int, cache: KVCache) -> Tensor:
        """One decoder layer; hidden (n, hidden)."""
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), batch, layer, cache)
        inner = self.post_attention_layernorm(hidden)
        gated = functional.silu(self.mlp["gate_proj"](inner)) * self.mlp["up_proj"](inner)
        out: Tensor = hidden + self.mlp["down_proj"](gated)
        return out


class Decoder(nn.Module):
    """The whole model; parameters are named as in the checkpoints of the `transformers` package."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.lm_head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Compute an iteration: logits of the last token of each request, (requests, vocabulary).

        Requests are in the order of the batch: decodes, then chunks of prompts.
        """
        hidden = self.embed_tokens(batch.tokens)
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, batch, index, cache)
        logits: Tensor = self.lm_head(self.norm(hidden[batch.last]))
        return logits


@dataclass(frozen=True)
class Batch:
    """An iteration laid out as tensors on the device, n tokens, decodes first.

    Attributes:
        tokens, slots, positions: Of each token, shape (n,).
        last: Index of the last token of each request, shape (requests,).
        decodes: How many requests decode.
        decodes_in_place: Whether the decodes hold slots 0, 1, … in order: then nothing is copied.
        decode_length: KV tokens that decode attention reads at most, rounded up.
        decode_mask: Which of them belong to each request, (decodes, 1, 1, decode_length).
        prefills: Chunks of prompts, in the order of their tokens.
        cosine, sine: Of the rotary positions, shape (n, 1, head_dim).
    """

    tokens: Tensor
    slots: Tensor
    positions: Tensor
    last: Tensor
    decodes: int
    decodes_in_place: bool
    decode_length: int
    decode_mask: Tensor | None
    prefills: tuple[Chunk, ...]
    cosine: Tensor
    sine: Tensor

    def rotate(self, heads: Tensor) -> Tensor:
        """Rotary embedding of (n, heads, head_dim)."""
        low, high = heads.chunk(2, dim=-1)
        turned = torch.cat((-high, low), dim=-1)
        return heads * self.cosine + turned * self.sine


def make_batch(
    shape: ModelShape,
    decodes: Sequence[Chunk],
    prefills: Sequence[Chunk],
    cache: KVCache,
) -> Batch:
    """Lay out an iteration.

    Args:
        decodes: Chunks of one token each.
        prefills: Chunks of prompts, of any number of tokens.
    """
    device, dtype, cache_length = cache.keys.device, cache.keys.dtype, cache.length
    chunks = [*decodes, *prefills]
    counts = torch.tensor([len(one.tokens) for one in chunks])
    tokens = torch.tensor([token for one in chunks for token in one.tokens], device=device)
    slots = torch.repeat_interleave(torch.tensor([one.slot for one in chunks]), counts).to(device)
    places = [torch.arange(one.start, one.start + len(one.tokens)) for one in chunks]
    positions = torch.cat(places).to(device)
    longest = max((one.start + 1 for one in decodes), default=0)
    length = min(-(-longest // LENGTH_STEP) * LENGTH_STEP, cache_length)
    cosine, sine = rotary(shape, positions, dtype)
    return Batch(
        tokens=tokens,
        slots=slots,
        positions=positions,
        last=(torch.cumsum(counts, 0) - 1).to(device),
        decodes=len(decodes),
        decodes_in_place=[one.slot for one in decodes] == list(range(len(decodes))),
        decode_length=length,
        decode_mask=decode_mask(positions[: len(decodes)], length) if decodes else None,
        prefills=tuple(prefills),
        cosine=cosine,
        sine=sine,
    )


def decode_mask(positions: Tensor, length: int) -> Tensor:
    """Which of `length` KV tokens each decode may read, its own included; (b, 1, 1, length)."""
    return (torch.arange(length, device=positions.device) <= positions[:, None])[:, None, None]


def rotary(shape: ModelShape, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles, (n, 1, head_dim)."""
    steps = torch.arange(0, shape.head_dim, 2, device=positions.device, dtype=torch.float32)
    frequency = shape.rope_theta ** (-steps / shape.head_dim)
    angles = positions[:, None].float() * frequency
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def run_iteration(
    decoder: Decoder, cache: KVCache, decodes: Sequence[Chunk], prefills: Sequence[Chunk]
) -> list[int]:
    """Lay out and compute an iteration; the most likely next token of each request, as integers."""
    batch = make_batch(decoder.shape, decodes, prefills, cache)
    with torch.inference_mode():
        return [int(one) for one in decoder(batch, cache).argmax(dim=-1).tolist()]


def random_decoder(
    shape: ModelShape, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> Decoder:
    """A decoder with random weights, made on the device in its own type.

    Weights do not change what an iteration costs; their scale keeps activations finite.
    """
    with torch.device("meta"):
        decoder = Decoder(shape)
    decoder = decoder.to(dtype).to_empty(device=device).requires_grad_(False).eval()
    generator = torch.Generator(device=device).manual_seed(seed)
    for name, weight in decoder.named_parameters():
        if "norm" in name:
            weight.fill_(1.0)
        else:
            weight.normal_(0.0, 0.02, generator=generator)
    return decoder
