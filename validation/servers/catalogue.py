"""The estimated servers that are shipped, made again by ``python -m validation.servers.catalogue``.

Models of which people ask, on GPUs that they rent, with the smallest group of GPUs that leaves room
for a cache. Their KV tokens are what vLLM's grouping makes of the memory beside the weights and
`RESERVED_GIB`, which two public logs agree on; an engine's own log is always better.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from fluid.errors import FluidwaitError
from fluid.files import write_document
from fluid.result import percent
from fluid.server import Server
from validation.servers.estimate import EstimatedServer, estimate_server
from validation.servers.gpus import engine_defaults, gpu_named
from validation.servers.kv_memory import kv_groups
from validation.servers.shape import read_shape
from validation.servers.tables import find_config

RESERVED_GIB = 8.0
_KV_SOURCE = (
    "KV tokens: vLLM's grouping of 0.9 of the memory less the weights and 8 GiB for all else, as "
    "logged with gpt-oss-120b on an H100 (7.5 GiB, vllm-project/vllm issue 23278) and "
    "Qwen3-235B-A22B-FP8 on four (8.2 GiB, issue 21348)"
)
FOLDER = Path(__file__).parents[2] / "fluid" / "servers"


@dataclass(frozen=True)
class Entry:
    """One server of the catalogue.

    Attributes:
        accept_fit: Take it although its tables are followed less well than is asked.
    """

    model: str
    gpu: str
    tp: int = 1
    engine: str = "vllm"
    weights: str | None = None
    accept_fit: bool = False


_LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
_LLAMA_70B = "meta-llama/Llama-3.3-70B-Instruct"
_QWEN_32B = "Qwen/Qwen3-32B"
_QWEN_30B = "Qwen/Qwen3-30B-A3B"
_GPT_OSS = "openai/gpt-oss-120b"
_DEEPSEEK = "deepseek-ai/DeepSeek-V3"

ENTRIES = (
    Entry(_LLAMA_8B, "a100_sxm"),
    Entry(_LLAMA_8B, "l40s"),
    Entry(_LLAMA_8B, "h100_sxm"),
    Entry(_LLAMA_8B, "h200_sxm"),
    Entry(_LLAMA_8B, "b200_sxm"),
    Entry(_LLAMA_8B, "h100_sxm", engine="sglang"),
    Entry(_LLAMA_70B, "a100_sxm", 4),
    Entry(_LLAMA_70B, "l40s", 8),
    Entry(_LLAMA_70B, "h100_sxm", 4),
    Entry(_LLAMA_70B, "h100_sxm", 2, weights="fp8"),
    Entry(_LLAMA_70B, "h200_sxm", 2),
    Entry(_LLAMA_70B, "b200_sxm", 2),
    Entry(_LLAMA_70B, "h100_sxm", 4, "sglang"),
    Entry(_QWEN_32B, "a100_sxm", 2),
    Entry(_QWEN_32B, "l40s", 4),
    Entry(_QWEN_32B, "h100_sxm", 2),
    Entry(_QWEN_32B, "h200_sxm"),
    Entry(_QWEN_32B, "b200_sxm"),
    Entry(_QWEN_32B, "h100_sxm", 2, "sglang"),
    Entry(_QWEN_30B, "a100_sxm", 2),
    Entry(_QWEN_30B, "l40s", 4),
    Entry(_QWEN_30B, "h100_sxm", 2),
    Entry(_QWEN_30B, "h200_sxm"),
    Entry(_QWEN_30B, "b200_sxm"),
    Entry(_QWEN_30B, "h100_sxm", 2, "sglang"),
    Entry(_GPT_OSS, "h100_sxm", 2),
    Entry(_GPT_OSS, "h200_sxm"),
    Entry(_GPT_OSS, "b200_sxm"),
    Entry(_GPT_OSS, "h100_sxm", 2, "sglang"),
    Entry(_DEEPSEEK, "h200_sxm", 8, accept_fit=True),
    Entry(_DEEPSEEK, "b200_sxm", 8, accept_fit=True),
    Entry(_DEEPSEEK, "h200_sxm", 8, "sglang", accept_fit=True),
)


def estimated(entry: Entry) -> EstimatedServer:
    """The server of an entry.

    Raises:
        InputError, InfeasibleError: As `estimate_server`.
    """
    return estimate_server(
        entry.model,
        gpu=entry.gpu,
        tp=entry.tp,
        engine=entry.engine,
        weights=entry.weights,
        kv_tokens=kv_tokens(entry),
        accept_fit=entry.accept_fit,
    )


def kv_tokens(entry: Entry) -> int:
    """KV tokens beside the weights and what else an engine needs."""
    config, card = find_config(entry.model), gpu_named(entry.gpu)
    shape = read_shape(config.path, config.name, entry.weights)
    free_bytes = (0.9 * card.memory_gib - RESERVED_GIB) * 2**30 - shape.weight_bytes / entry.tp
    limits = engine_defaults(entry.engine, entry.gpu, card.memory_gib)
    groups = kv_groups(shape, entry.tp)
    longest = shape.longest_tokens or groups.blocks(free_bytes) * groups.block_tokens
    # Two batches may be in flight where scheduling is asynchronous, vLLM's default.
    return groups.tokens(free_bytes, longest, 2 * limits.max_num_batched_tokens)


def shipped(found: EstimatedServer) -> Server:
    """Its server, with where the KV tokens come from."""
    source = found.server.source.replace("KV tokens as given", _KV_SOURCE)
    return found.server.model_copy(update={"source": source})


def main(wanted: list[str]) -> int:
    """Write the entries whose names contain one of the words, or all; a line for each."""
    failed = 0
    for entry in ENTRIES:
        name = f"{entry.model} {entry.gpu} {entry.tp} {entry.engine}"
        if wanted and not any(word in name for word in wanted):
            continue
        try:
            found = estimated(entry)
        except FluidwaitError as error:
            print(f"{name}: {error}", flush=True)
            failed += 1
            continue
        server = shipped(found)
        write_document(server.document(), FOLDER / f"{server.name}.json")
        errors = (found.held_out, found.few_decodes, found.many_decodes)
        figures = " ".join(percent(one.mean) for one in errors)
        print(f"{server.name}: {server.kv_capacity_tokens:,} KV, {figures}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
