"""KV tokens of models against vLLM's own grouping of their layers and its count of blocks.

vLLM is given what each layer caches (its own specification classes, sizes by its own model config
and state calculator) and says how many blocks fit and how many tokens its log would name.
"""

from __future__ import annotations

import json
from math import ceil, prod
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm.config import (
    CacheConfig,
    DeviceConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    VllmConfig,
)
from vllm.model_executor.layers.mamba.mamba_utils import MambaStateShapeCalculator
from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity, get_kv_cache_configs
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheSpec,
    MambaSpec,
    MLAAttentionSpec,
    SlidingWindowSpec,
)

from tests.support.model_configs import CONFIGS, shape_named
from validation.servers.kv_memory import kv_groups

MEMORY_BYTES = 37 * 2**30 + 12_345
BATCHED_TOKENS = 8192

CASES = [
    ("llama-3.1-8b", 1, "auto", 131072),
    ("llama-3.1-8b", 2, "fp8", 131072),
    ("llama-3.1-70b", 4, "auto", 32768),
    ("llama-3.1-70b", 8, "auto", 131072),
    ("qwen3-32b-fp8", 2, "auto", 40960),
    ("qwen3-30b-a3b", 8, "auto", 40960),
    ("mixtral-8x7b", 2, "auto", 32768),
    ("gpt-oss-120b", 1, "auto", 131072),
    ("gpt-oss-120b", 4, "auto", 8192),
    ("gpt-oss-20b", 1, "auto", 131072),
    ("deepseek-v3", 8, "auto", 163840),
    ("qwen3.5-27b", 1, "auto", 131072),
    ("qwen3.5-35b-a3b", 2, "auto", 262144),
]


@pytest.mark.parametrize(("model", "tp", "cache_dtype", "longest"), CASES)
def test_blocks_and_tokens_are_vllms(
    tmp_path: Path, model: str, tp: int, cache_dtype: str, longest: int
) -> None:
    text = _text_config(model)
    config = _config(_dense(text, tmp_path), tp, cache_dtype, longest)
    specs = _specs(config, text, tp)
    (found,) = get_kv_cache_configs(config, [specs], [MEMORY_BYTES])
    tokens, _ = get_kv_cache_capacity(config, found)
    groups = kv_groups(shape_named(model), tp, "fp8" if cache_dtype == "fp8" else "bf16")
    assert groups.blocks(MEMORY_BYTES) == found.num_blocks
    assert len(groups.kinds) == len(found.kv_cache_groups)
    assert groups.tokens(MEMORY_BYTES, longest, config.max_in_flight_tokens) == tokens


def _text_config(model: str) -> dict[str, Any]:
    """The part that describes the decoder, without its weights' numbers: the cache knows none."""
    document = json.loads((CONFIGS / model / "config.json").read_text(encoding="utf-8"))
    text: dict[str, Any] = document.get("text_config", document)
    text.pop("quantization_config", None)
    return text


def _dense(text: dict[str, Any], folder: Path) -> Path:
    """A folder with the config; a model with states as a dense one of the same heads, whose own
    class this installation cannot load."""
    if "linear_num_key_heads" in text:
        text = text | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        text["hidden_size"] = text["num_attention_heads"] * text["head_dim"]
        text.pop("layer_types")
    (folder / "config.json").write_text(json.dumps(text), encoding="utf-8")
    return folder


def _config(folder: Path, tp: int, cache_dtype: str, longest: int) -> VllmConfig:
    model_config = ModelConfig(
        model=str(folder),
        tokenizer=str(folder),
        skip_tokenizer_init=True,
        max_model_len=longest,
        dtype="bfloat16",
    )
    parallel = ParallelConfig()
    # More than one worker asks for as many GPUs; the sizes below ask for the number alone.
    parallel.tensor_parallel_size = tp
    scheduler = SchedulerConfig(
        max_num_batched_tokens=BATCHED_TOKENS,
        max_num_seqs=256,
        max_model_len=longest,
        is_encoder_decoder=False,
    )
    cache = CacheConfig(block_size=16, cache_dtype=cache_dtype)
    cache.kv_cache_layout = "LBNHC"
    return VllmConfig(
        model_config=model_config,
        cache_config=cache,
        scheduler_config=scheduler,
        parallel_config=parallel,
        device_config=DeviceConfig("cpu"),
    )


def _specs(config: VllmConfig, text: dict[str, Any], tp: int) -> dict[str, KVCacheSpec]:
    """What each layer caches, by vLLM's own figures."""
    own = config.model_config
    dtype = torch.float8_e4m3fn if config.cache_config.cache_dtype == "fp8" else torch.bfloat16
    sizes = {
        "block_size": 16,
        "num_kv_heads": own.get_num_kv_heads(config.parallel_config),
        "head_size": own.get_head_size(),
        "dtype": dtype,
    }
    kinds = text.get("layer_types") or ["full_attention"] * text["num_hidden_layers"]
    if "linear_attention" in kinds:
        return _with_states(text, kinds, sizes, tp)
    found: dict[str, KVCacheSpec] = {}
    for index, kind in enumerate(kinds):
        if own.use_mla:
            spec: KVCacheSpec = MLAAttentionSpec(**sizes)
        elif kind == "sliding_attention":
            spec = SlidingWindowSpec(**sizes, sliding_window=text["sliding_window"])
        else:
            spec = FullAttentionSpec(**sizes)
        found[f"layers.{index}"] = spec
    return found


def _with_states(
    text: dict[str, Any], kinds: list[str], sizes: dict[str, Any], tp: int
) -> dict[str, Any]:
    """As the platform aligns them: blocks of attention grow until a state fits into one."""
    shapes = MambaStateShapeCalculator.gated_delta_net_state_shape(
        tp,
        text["linear_num_key_heads"],
        text["linear_num_value_heads"],
        text["linear_key_head_dim"],
        text["linear_value_head_dim"],
        text["linear_conv_kernel_dim"],
    )
    dtypes = (torch.bfloat16, getattr(torch, text["mamba_ssm_dtype"]))
    state = sum(prod(one) * kind.itemsize for one, kind in zip(shapes, dtypes, strict=True))
    per_token = FullAttentionSpec(**{**sizes, "block_size": 1}).page_size_bytes
    block = 16 * ceil(state / (16 * per_token))
    page = block * per_token
    found: dict[str, Any] = {}
    for index, kind in enumerate(kinds):
        if kind == "linear_attention":
            spec: KVCacheSpec = MambaSpec(
                block_size=block, shapes=shapes, dtypes=dtypes, page_size_padded=page
            )
        else:
            spec = FullAttentionSpec(**{**sizes, "block_size": block})
        found[f"layers.{index}"] = spec
    return found
