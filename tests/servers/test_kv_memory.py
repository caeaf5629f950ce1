"""KV tokens by hand; ``make test-vllm`` compares the same with vLLM's own grouping."""

from __future__ import annotations

import pytest

from fluid.errors import InputError
from tests.support.model_configs import shape_named
from validation.servers.kv_memory import kv_groups, require_divides, state_bytes_of

GIB = 2**30


@pytest.mark.parametrize(
    ("model", "tp", "dtype", "block_bytes"),
    [
        # 2 (K and V) × heads of this GPU × head size × bytes × layers, 16 tokens.
        ("llama-3.1-8b", 1, "bf16", 16 * 2 * 8 * 128 * 2 * 32),
        ("llama-3.1-8b", 1, "fp8", 16 * 2 * 8 * 128 * 1 * 32),
        ("llama-3.1-70b", 4, "bf16", 16 * 2 * 2 * 128 * 2 * 80),
        ("qwen3-30b-a3b", 8, "bf16", 16 * 2 * 1 * 128 * 2 * 48),  # 4 heads on 8 GPUs: copies
        ("deepseek-v3", 8, "bf16", 16 * 576 * 2 * 61),  # every GPU holds the latent row whole
        ("gpt-oss-120b", 2, "bf16", 16 * 2 * 4 * 64 * 2 * 18),  # 18 layers of each kind
    ],
)
def test_a_block_is_sixteen_tokens_of_every_layer_of_a_group(model, tp, dtype, block_bytes):
    groups = kv_groups(shape_named(model), tp, dtype)
    assert groups.block_bytes == block_bytes
    assert groups.blocks(10 * GIB) == 10 * GIB // block_bytes


def test_one_kind_of_layers_counts_tokens():
    groups = kv_groups(shape_named("llama-3.1-8b"))
    assert groups.kinds == ("full",)
    assert groups.tokens(GIB, longest_tokens=4096, in_flight_tokens=1) == 8192


def test_a_window_takes_no_more_than_it_sees():
    """gpt-oss: 18 sliding layers of 128 tokens beside 18 full ones, a pool of two groups."""
    groups = kv_groups(shape_named("gpt-oss-120b"))
    assert groups.kinds == ("sliding", "full")
    assert groups.blocks_of_request(131072, in_flight_tokens=8192) == 131072 // 16 + 520 + 1
    assert groups.blocks_of_request(64, in_flight_tokens=8192) == 4 + 5
    full = 10 * GIB // groups.block_bytes * 16
    assert 0.9 * full < groups.tokens(10 * GIB, 131072, 8192) < full


def test_a_state_needs_a_page_and_blocks_grow_to_it():
    """Qwen3.5-27B: 48 layers of 48 × 128 × 128 float32 and a convolution, in three groups."""
    shape = shape_named("qwen3.5-27b")
    state = 48 * 128 * 128 * 4 + 2 * 3 * (2 * 16 * 128 + 48 * 128)
    assert state_bytes_of(shape, 1) == state
    groups = kv_groups(shape)
    assert groups.kinds == ("state",) * 3 + ("full",)
    assert (groups.layers, groups.block_tokens) == (16, 16 * -(-state // (16 * 4096)))
    assert groups.blocks_of_request(groups.block_tokens + 1, 1) == 3 + 2


@pytest.mark.parametrize(
    ("model", "tp"), [("llama-3.1-8b", 3), ("deepseek-v3", 5), ("llama-3.1-8b", 0)]
)
def test_heads_are_not_cut(model, tp):
    with pytest.raises(InputError) as caught:
        require_divides(shape_named(model), tp)
    assert caught.value.field == "tp"
    assert "1, 2, 4" in caught.value.allowed


def test_numbers_of_the_cache():
    with pytest.raises(InputError, match="kv_dtype"):
        kv_groups(shape_named("llama-3.1-8b"), 1, "fp4")
