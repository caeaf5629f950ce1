"""How many tokens of KV cache fit into so many bytes: vLLM's own count, for every attention kind.

Layers of one kind form groups of equally many layers; a block of the shared pool holds `block`
tokens of every layer of one group, and a request takes blocks of each group: of full attention as
its tokens need, of a sliding window no more than the window and what is being computed, of a state
one. The engine's log names the tokens of requests of the longest length (vLLM 0.32,
`v1.core.kv_cache_utils`, of which ``make test-vllm`` asks the same).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from fluid.errors import InputError
from validation.servers.shape import DTYPE_BYTES, Kind, ModelShape

BLOCK_TOKENS = 16
_LESS_PADDING = 1.5
"""Below this ratio of their layers the larger of two kinds sets the size of the groups."""


@dataclass(frozen=True)
class KvGroups:
    """The cache of one GPU of a tensor-parallel group.

    Attributes:
        block_tokens: Tokens of a block of full attention.
        page_bytes: Of one block in one layer.
        layers: Layers of each group, padding counted.
        kinds: Kind of each group.
        window: Tokens a sliding layer sees; None without any.
    """

    block_tokens: int
    page_bytes: int
    layers: int
    kinds: tuple[Kind, ...]
    window: int | None

    @property
    def block_bytes(self) -> int:
        """Of one block of the shared pool."""
        return self.page_bytes * self.layers

    def blocks(self, memory_bytes: float) -> int:
        """Blocks of the pool."""
        return int(memory_bytes // self.block_bytes)

    def blocks_of_request(self, tokens: int, in_flight_tokens: int) -> int:
        """Blocks that a request of so many tokens takes at most.

        Args:
            in_flight_tokens: Tokens that may be in computation at once, as they are still in the
                window's blocks: the token budget, twice that where scheduling is asynchronous.
        """
        total = 0
        for kind in self.kinds:
            if kind == "full":
                total += -(-tokens // self.block_tokens)
            elif kind == "sliding":
                assert self.window is not None
                seen = min(self.window - 1 + in_flight_tokens, tokens)
                total += -(-seen // self.block_tokens) + 1
            else:
                total += 1
        return total

    def tokens(self, memory_bytes: float, longest_tokens: int, in_flight_tokens: int) -> int:
        """What the engine's log calls the size of the KV cache, in tokens."""
        per_request = self.blocks_of_request(longest_tokens, in_flight_tokens)
        return int(self.blocks(memory_bytes) / per_request * longest_tokens)


def kv_groups(shape: ModelShape, tp: int = 1, kv_dtype: str = "bf16") -> KvGroups:
    """The groups of a model's layers.

    Args:
        tp: GPUs of the tensor-parallel group.
        kv_dtype: Numbers of the cache, bf16 or fp8.

    Raises:
        InputError: Heads that cannot be divided among the GPUs.

    >>> from validation.servers.kv_memory import kv_groups
    >>> from validation.servers.shape import shape_of
    >>> config = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    ...           "num_attention_heads": 32, "num_key_value_heads": 8,
    ...           "intermediate_size": 14336, "vocab_size": 128256}
    >>> groups = kv_groups(shape_of(config, "llama-3.1-8b"))
    >>> groups.tokens(2**30, longest_tokens=8192, in_flight_tokens=8192)
    8192
    """
    require_divides(shape, tp)
    if kv_dtype not in ("bf16", "fp8"):
        raise InputError("kv_dtype", kv_dtype, "bf16 or fp8")
    token_bytes = token_bytes_of(shape, tp, kv_dtype)
    block = BLOCK_TOKENS
    if "state" in shape.kinds:
        # A state needs a page too: blocks of attention grow until theirs is as large.
        state = state_bytes_of(shape, tp)
        block = BLOCK_TOKENS * -(-state // (BLOCK_TOKENS * token_bytes))
    counts = Counter(shape.kinds)
    least, most = min(counts.values()), max(counts.values())
    size = most if most < least * _LESS_PADDING else least
    kinds = tuple(kind for kind in counts for _ in range(-(-counts[kind] // size)))
    return KvGroups(block, block * token_bytes, size, kinds, shape.window)


def token_bytes_of(shape: ModelShape, tp: int, kv_dtype: str) -> int:
    """Bytes of one token in one layer with attention, on each GPU; `kv_dtype` as `kv_groups`."""
    if shape.latent is not None:  # every GPU holds all of it
        values = shape.latent.rank + shape.latent.rope_dim
    else:
        values = 2 * shape.head_dim * max(1, shape.kv_heads // tp)
    return int(values * DTYPE_BYTES[kv_dtype])


def state_bytes_of(shape: ModelShape, tp: int) -> int:
    """Bytes of one request's state in one layer, on each GPU."""
    assert shape.state is not None
    one = shape.state
    convolution = 2 * (one.channels // tp) * (one.kernel - 1)
    return convolution + one.value_bytes * (one.value_heads // tp) * one.value_dim * one.key_dim


def require_divides(shape: ModelShape, tp: int) -> None:
    """Refuse a tensor-parallel group whose GPUs would hold parts of a head.

    Raises:
        InputError: Naming what does divide the heads.
    """
    latent, kv_heads = shape.latent is not None, shape.kv_heads
    if tp < 1 or shape.heads % tp or not (latent or kv_heads % tp == 0 or tp % kv_heads == 0):
        divisors = [one for one in range(1, 65) if shape.heads % one == 0]
        allowed = f"a divisor of the {shape.heads} heads of {shape.name}"
        raise InputError("tp", tp, f"{allowed}: {', '.join(map(str, divisors))}")


def gibibytes(size_bytes: float) -> float:
    """Bytes in GiB."""
    return size_bytes / math.ldexp(1.0, 30)
