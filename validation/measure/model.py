"""A compact Llama decoder on a slotted KV cache: one iteration computes a mixed batch.

What a serving engine's iteration does, at exact dimensions: every token of the batch, prompts and
decodes alike, goes through the same matrix products; only attention tells requests apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from validation.measure.attention import BatchAttention
from validation.measure.batch import Batch
from validation.measure.kv_cache import KVCache
from validation.measure.shapes import ModelShape

# mypy: disable-error-code="misc, no-untyped-call"


@dataclass(frozen=True)
class Workspace:
    """What the n tokens of an iteration are computed in.

    Attributes:
        hidden: (n, hidden).
        heads: Queries, keys and values, (n, heads + 2 · kv_heads, head_dim).
        mixed: What attention makes of them, (n, heads, head_dim).
        cosine, sine: Of the rotary angles, (n, 1, head_dim), as `rotary` gives them.
    """

    hidden: Tensor
    heads: Tensor
    mixed: Tensor
    cosine: Tensor
    sine: Tensor

    @property
    def query(self) -> Tensor:
        """(n, heads, head_dim)."""
        return self.heads[:, : self.mixed.shape[1]]

    @property
    def keys_values(self) -> Tensor:
        """(n, 2 · kv_heads, head_dim)."""
        return self.heads[:, self.mixed.shape[1] :]

    def rotate(self) -> None:
        """Rotary embedding of queries and keys, in place."""
        queries = self.mixed.shape[1]
        keys = (self.heads.shape[1] - queries) // 2
        rotated = self.heads[:, : queries + keys]
        turned = rotated.roll(self.heads.shape[2] // 2, dims=-1)
        rotated.mul_(self.cosine).addcmul_(turned, self.sine)


class Layer(nn.Module):
    """Attention and SwiGLU, each after an RMS norm and around a residual."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        width, grouped = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.qkv_proj = nn.Linear(shape.hidden, width + 2 * grouped, bias=False)
        self.o_proj = nn.Linear(width, shape.hidden, bias=False)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.gate_up_proj = nn.Linear(shape.hidden, 2 * shape.mlp, bias=False)
        self.down_proj = nn.Linear(shape.mlp, shape.hidden, bias=False)

    def before_attention(self, space: Workspace) -> None:
        """Queries, keys and values of all tokens."""
        normed = self.input_layernorm(space.hidden)
        torch.mm(normed, self.qkv_proj.weight.t(), out=space.heads.flatten(1))
        space.rotate()

    def after_attention(self, space: Workspace) -> None:
        """What attention has mixed into the hidden states, and the perceptron."""
        space.hidden.add_(self.o_proj(space.mixed.flatten(1)))
        gate, up = self.gate_up_proj(self.post_attention_layernorm(space.hidden)).chunk(2, dim=-1)
        space.hidden.add_(self.down_proj(functional.silu(gate).mul_(up)))

    def checkpoint_weights(self, shape: ModelShape) -> dict[str, Tensor]:
        """As `Decoder.checkpoint_weights`, without the number of the layer."""
        grouped = shape.kv_heads * shape.head_dim
        query, keys_values = self.qkv_proj.weight.split([shape.heads * shape.head_dim, 2 * grouped])
        key, value = keys_values.split(grouped)
        gate, up = self.gate_up_proj.weight.split(shape.mlp)
        return {
            "input_layernorm": self.input_layernorm.weight,
            "self_attn.q_proj": query,
            "self_attn.k_proj": key,
            "self_attn.v_proj": value,
            "self_attn.o_proj": self.o_proj.weight,
            "post_attention_layernorm": self.post_attention_layernorm.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": self.down_proj.weight,
        }


class Decoder(nn.Module):
    """The whole model, for inference: it computes in place."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.lm_head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.lm_head.weight.device

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Compute an iteration: logits of the last token of each request, (requests, vocabulary).

        Requests are in the order of the batch: decodes, then chunks of prompts.
        """
        space = self._workspace(batch)
        attend = BatchAttention(self.shape, batch, cache)
        for index in range(self.shape.layers):
            layer = self._layer(index)
            layer.before_attention(space)
            cache.write(index, batch.rows, space.keys_values)
            attend(index, space.query, space.keys_values, space.mixed)
            layer.after_attention(space)
        logits: Tensor = self.lm_head(self.norm(space.hidden[batch.last]))
        return logits

    def checkpoint_weights(self) -> dict[str, Tensor]:
        """The weights by their names in the checkpoints of the `transformers` package.

        Those keep apart what is multiplied at once here; the parts are views.
        """
        found = {
            "embed_tokens.weight": self.embed_tokens.weight,
            "norm.weight": self.norm.weight,
            "lm_head.weight": self.lm_head.weight,
        }
        for index in range(self.shape.layers):
            for name, weight in self._layer(index).checkpoint_weights(self.shape).items():
                found[f"layers.{index}.{name}.weight"] = weight
        return found

    def _workspace(self, batch: Batch) -> Workspace:
        """With the embedded tokens and their angles."""
        shape, like = self.shape, self.lm_head.weight
        cosine, sine = rotary(shape, batch.positions)
        return Workspace(
            hidden=self.embed_tokens(batch.tokens),
            heads=like.new_empty(batch.width, shape.heads + 2 * shape.kv_heads, shape.head_dim),
            mixed=like.new_empty(batch.width, shape.heads, shape.head_dim),
            cosine=cosine.to(like.dtype),
            sine=sine.to(like.dtype),
        )

    def _layer(self, index: int) -> Layer:
        return cast(Layer, self.layers[index])


def rotary(shape: ModelShape, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the rotary angles, (n, 1, head_dim), the sine negative in its first half.

    An embedding is then heads · cosine + turned · sine, with the halves of each head exchanged in
    the turned ones.
    """
    steps = torch.arange(0, shape.head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions[:, None, None] * shape.rope_theta ** (-steps / shape.head_dim)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat((cosine, cosine), dim=-1), torch.cat((-sine, sine), dim=-1)


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
