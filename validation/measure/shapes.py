"""Shapes of Llama decoders by name."""

from __future__ import annotations

from dataclasses import dataclass

from fluid.errors import InputError


@dataclass(frozen=True)
class ModelShape:
    """Dimensions of a Llama decoder.

    Attributes:
        kv_heads: Heads of keys and values; fewer than `heads` where they are grouped.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that one token adds to the KV cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def weights(self) -> int:
        """Numbers in the model, embedding and output head included."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.mlp + 2 * self.hidden
        return self.layers * layer + 2 * self.vocabulary * self.hidden + self.hidden

    @property
    def multiplied_weights(self) -> int:
        """Weights that every computed token is multiplied with: all but embedding and head."""
        return self.weights - 2 * self.vocabulary * self.hidden


SHAPES = {
    one.name: one
    for one in (
        ModelShape("llama-2-7b", 32, 4096, 32, 32, 128, 11_008, 32_000),
        ModelShape("llama-3-8b", 32, 4096, 32, 8, 128, 14_336, 128_256, rope_theta=500_000.0),
        ModelShape("tiny", 2, 64, 4, 4, 16, 128, 256),
        ModelShape("tiny-grouped", 2, 64, 4, 2, 16, 128, 256),
    )
}
"""The tiny ones are for tests on a CPU."""


def shape_named(name: str) -> ModelShape:
    """A shape by name.

    Raises:
        InputError: There is none of that name.
    """
    if name not in SHAPES:
        raise InputError("model", name, "one of " + ", ".join(SHAPES))
    return SHAPES[name]
