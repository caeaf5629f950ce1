"""Iteration times from a data sheet: bytes against bandwidth, operations against their rate.

Every layer takes the longer of reading (its weights, the caches of those who decode) and computing;
layers follow each other, with a fixed cost of launching each and, on several GPUs, two all-reduces.
Three factors say how much of a data sheet a kernel reaches. They are round numbers chosen once, not
fitted to an engine: the means of public measurements lie within some 12 % of what they give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from validation.measure.composition import Floats
from validation.servers.gpus import Gpu
from validation.servers.kv_memory import state_bytes_of, token_bytes_of
from validation.servers.shape import DTYPE_BYTES, ModelShape

BANDWIDTH_SHARE = 0.75
OPERATIONS_SHARE = 0.45
LAYER_S = 50e-6


@dataclass(frozen=True)
class Roofline:
    """Times of a model on one tensor-parallel group.

    Attributes:
        expert_parallel: GPUs among which whole experts are dealt out.
    """

    shape: ModelShape
    gpu: Gpu
    tp: int
    kv_dtype: str
    expert_parallel: int

    @property
    def source(self) -> str:
        """Data sheet and factors, in words."""
        return (
            f"estimated from a data sheet, not measured: {self.gpu.source}; "
            f"{BANDWIDTH_SHARE:g} of its bandwidth, {OPERATIONS_SHARE:g} of its operations, "
            f"{1e6 * LAYER_S:g} µs a layer; weights in {self.shape.weights}, KV cache in "
            f"{self.kv_dtype}"
        )

    def seconds(self, rows: Floats) -> Floats:
        """Times of batches, shape (N,).

        Args:
            rows: Prompts, their tokens, cached tokens of each, decodes, KV read; shape (N, 5).
        """
        prompts, tokens, _, decodes, _ = rows.T
        computed = tokens + decodes
        # Rows of the logits: one for each request that emits a token.
        logits = prompts + decodes
        return np.asarray(
            self._linear_s(computed, logits)
            + self._attention_s(rows)
            + LAYER_S * self.shape.layers
            + self._all_reduce_s(computed)
        )

    def _linear_s(self, tokens: Floats, logits: Floats) -> Floats:
        """Products with weights: everything but attention itself."""
        shape, size = self.shape, DTYPE_BYTES[self.shape.weights]
        # mxfp4 quantises the experts alone.
        plain = DTYPE_BYTES["bf16"] if shape.weights == "fp4" else size
        mixer = self._longer(shape.mixer_weights, plain, shape.mixer_weights * tokens)
        tables = self.shape.hidden * self.shape.vocabulary
        last = self._longer(tables, 2.0, tables * logits)
        if shape.experts is None:
            weights = shape.feed_forward_weights
            return np.asarray(mixer + self._longer(weights, size, weights * tokens) + last)
        experts = shape.experts
        dense = experts.dense_layers * 3 * shape.hidden * shape.intermediate
        sparse = shape.layers - experts.dense_layers
        # Experts that at least one token passes, if each chooses at random.
        touched = experts.count * -np.expm1(tokens * np.log1p(-experts.active / experts.count))
        width = touched * experts.intermediate + experts.shared_intermediate
        read = sparse * 3 * shape.hidden * width
        done = sparse * shape.expert_weights(experts.active) * tokens
        moe = self._longer(read, size, done)
        return np.asarray(mixer + self._longer(dense, size, dense * tokens) + moe + last)

    def _attention_s(self, rows: Floats) -> Floats:
        """Scores and values, by kind of layer; a window cuts what each token sees."""
        shape = self.shape
        prompts, tokens, cached, decodes, kv_tokens = rows.T
        own = tokens / np.maximum(prompts, 1)
        context = kv_tokens / np.maximum(decodes, 1)
        dims = 2 * shape.head_dim
        if shape.latent is not None:
            dims = 2 * shape.latent.rank + shape.latent.rope_dim
        total = np.zeros(len(rows))
        for kind, window in (("full", np.inf), ("sliding", shape.window or 0)):
            layers = sum(one == kind for one in shape.kinds)
            seen = np.minimum(context, window)
            pairs = tokens * np.minimum(cached + own / 2, window) + decodes * seen
            read = prompts * np.minimum(cached, window) + decodes * seen
            size = layers * token_bytes_of(shape, self.tp, self.kv_dtype)
            work = 2 * layers * shape.heads * dims * pairs / self.tp
            total += np.maximum(size * read / self._bandwidth, work / self._rate("bf16"))
        if shape.state is not None:
            states = shape.kinds.count("state") * (prompts + decodes)
            total += 2 * state_bytes_of(shape, self.tp) * states / self._bandwidth
        return total

    def _all_reduce_s(self, tokens: Floats) -> Floats:
        """Two a layer, of the hidden state in 16 bit, as a ring."""
        if self.tp == 1:
            return np.zeros_like(tokens)
        size = 2.0 * self.shape.hidden * tokens * 2 * (self.tp - 1) / self.tp
        return 2 * self.shape.layers * size / (BANDWIDTH_SHARE * self.gpu.link_bytes_per_s)

    def _longer(self, weights: Floats | float, size: float, products: Floats) -> Floats:
        """Reading weights of so many bytes each, or multiplying them."""
        numbers = self.shape.weights if size < 2 else "bf16"
        reading = np.asarray(weights) * size / self.tp / self._bandwidth
        return np.maximum(reading, 2 * products / self.tp / self._rate(numbers))

    @property
    def _bandwidth(self) -> float:
        return BANDWIDTH_SHARE * self.gpu.bandwidth_bytes_per_s

    def _rate(self, numbers: str) -> float:
        """Operations per second; numbers that the GPU does not multiply are widened."""
        rates = self.gpu.operations_per_s
        return OPERATIONS_SHARE * rates.get(numbers, rates["bf16"])


def roofline(
    shape: ModelShape, gpu: Gpu, tp: int, kv_dtype: str, expert_parallel: int = 1
) -> Roofline:
    """The data sheet's times of a model.

    >>> import numpy as np
    >>> from validation.servers.gpus import gpu_named
    >>> from validation.servers.roofline import roofline
    >>> from validation.servers.shape import shape_of
    >>> config = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    ...           "num_attention_heads": 32, "num_key_value_heads": 8,
    ...           "intermediate_size": 14336, "vocab_size": 128256}
    >>> sheet = roofline(shape_of(config, "llama-3.1-8b"), gpu_named("h100_sxm"), 1, "bf16")
    >>> decode = np.array([[0.0, 0.0, 0.0, 1.0, 512.0]])
    >>> f"{1e3 * sheet.seconds(decode)[0]:.1f} ms"
    '7.6 ms'
    """
    return Roofline(shape, gpu, tp, kv_dtype, expert_parallel)
