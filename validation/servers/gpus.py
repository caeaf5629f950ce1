"""GPUs as their data sheets describe them, and what engines take as defaults on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from fluid.errors import not_a_name

Engine = Literal["vllm", "sglang", "trtllm"]
ENGINES: tuple[str, ...] = get_args(Engine)


@dataclass(frozen=True)
class Gpu:
    """What a data sheet says of one GPU, and of its node.

    Attributes:
        memory_gib: Of the card; a driver keeps some of it.
        bandwidth_bytes_per_s: Of its memory.
        operations_per_s: Dense, without sparsity, by the numbers that are multiplied.
        link_bytes_per_s: To the other GPUs of its node, in one direction.
        node_gpus: Of a node.
        source: The data sheet.
    """

    name: str
    memory_gib: float
    bandwidth_bytes_per_s: float
    operations_per_s: Mapping[str, float]
    link_bytes_per_s: float
    node_gpus: int
    source: str


def _gpu(
    name: str,
    memory_gib: float,
    bandwidth: float,
    tera: tuple[float, float | None, float | None],
    link: float,
    source: str,
    node_gpus: int = 8,
) -> Gpu:
    """Bandwidths in GB/s; `tera` in Tera operations per second of bf16, fp8 and fp4."""
    numbers = zip(("bf16", "fp8", "fp4"), tera, strict=True)
    rates = {one: 1e12 * rate for one, rate in numbers if rate is not None}
    return Gpu(name, memory_gib, 1e9 * bandwidth, rates, 1e9 * link, node_gpus, source)


GPUS: dict[str, Gpu] = {
    one.name: one
    for one in (
        _gpu("a100_sxm", 80, 2039, (312, None, None), 300, "NVIDIA A100 SXM data sheet, 2022"),
        _gpu("a100_pcie", 80, 1935, (312, None, None), 32, "NVIDIA A100 PCIe data sheet, 2022"),
        _gpu("a10", 24, 600, (125, None, None), 32, "NVIDIA A10 data sheet, 2022", 4),
        _gpu("l4", 24, 300, (121, 242, None), 32, "NVIDIA L4 data sheet, 2023"),
        _gpu("l40s", 48, 864, (362, 733, None), 32, "NVIDIA L40S data sheet, 2023"),
        _gpu("h100_pcie", 80, 2000, (756, 1513, None), 64, "NVIDIA H100 PCIe data sheet, 2023"),
        _gpu("h100_sxm", 80, 3350, (989, 1979, None), 450, "NVIDIA H100 SXM data sheet, 2023"),
        _gpu("h200_sxm", 141, 4800, (989, 1979, None), 450, "NVIDIA H200 SXM data sheet, 2024"),
        _gpu("b200_sxm", 180, 8000, (2250, 4500, 9000), 900, "NVIDIA HGX B200 data sheet, 2024"),
        _gpu("b300_sxm", 288, 8000, (2250, 4500, 14000), 900, "NVIDIA HGX B300 data sheet, 2025"),
        _gpu("gb200", 186, 8000, (2500, 5000, 10000), 900, "NVIDIA GB200 data sheet, 2024", 4),
        _gpu(
            "rtx_pro_6000_server",
            96,
            1597,
            (500, 1000, 2000),
            64,
            "NVIDIA RTX PRO 6000 Blackwell Server Edition data sheet, 2025",
        ),
    )
}
"""By the names that measured tables use too."""


def gpu_named(name: str) -> Gpu:
    """The data sheet of a GPU.

    Raises:
        InputError: Not among `GPUS`.

    >>> from validation.servers.gpus import gpu_named
    >>> gpu_named("h100_sxm").memory_gib
    80
    """
    if name not in GPUS:
        raise not_a_name("gpu", name, sorted(GPUS))
    return GPUS[name]


@dataclass(frozen=True)
class EngineLimits:
    """What an engine computes at most in an iteration.

    Attributes:
        source: Where the defaults come from, in words.
    """

    max_num_batched_tokens: int
    max_num_seqs: int
    source: str


def engine_defaults(engine: str, gpu_name: str, memory_gib: float) -> EngineLimits:
    """The engine's own defaults on a GPU.

    vLLM (server): 2,048 tokens and 256 requests below 70 GiB or on an A100, 8,192 and 1,024 from
    70 GiB on, 16,384 and 1,024 from 160 GiB on. SGLang: chunks by memory; it says of requests that
    memory alone limits them, up to 2,048 or more. TensorRT-LLM: 8,192 and 2,048.

    Raises:
        InputError: An unknown engine.

    >>> from validation.servers.gpus import engine_defaults
    >>> engine_defaults("vllm", "h100_sxm", 80).max_num_batched_tokens
    8192
    """
    if engine == "vllm":
        if memory_gib < 70 or gpu_name.startswith("a100"):
            return EngineLimits(2048, 256, "vLLM's defaults below 70 GiB and on an A100")
        if memory_gib < 160:
            return EngineLimits(8192, 1024, "vLLM's defaults from 70 GiB on")
        return EngineLimits(16384, 1024, "vLLM's defaults from 160 GiB on")
    if engine == "sglang":
        chunk = 2048 if memory_gib < 35 else 4096 if memory_gib < 60 else 8192
        chunk = 16384 if memory_gib >= 160 else chunk
        return EngineLimits(chunk, 2048, f"SGLang's chunks on {memory_gib:g} GiB")
    if engine == "trtllm":
        return EngineLimits(8192, 2048, "TensorRT-LLM's defaults")
    raise not_a_name("engine", engine, ENGINES)
