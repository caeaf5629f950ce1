"""The device that is measured: is it there, does the model fit, what is it called?"""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess

import torch

from fluid.errors import InputError
from validation.measure.record import RunRecord
from validation.measure.shapes import ModelShape

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

_RESERVE = 0.1
"""Share of a device's memory that is left to the driver and to fragmentation."""


def device_named(name: str) -> torch.device:
    """The device to measure; "auto" is CUDA where there is one.

    Raises:
        InputError: An unknown name, or no CUDA device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise InputError("device", name, "auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device", name, "cpu: torch finds no CUDA device")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def dtype_named(name: str) -> torch.dtype:
    """The type of weights, KV and activations.

    Raises:
        InputError: An unknown name.
    """
    if name not in DTYPES:
        raise InputError("dtype", name, "one of " + ", ".join(DTYPES))
    return DTYPES[name]


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def require_room(shape: ModelShape, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a model that does not fit, before anything is allocated.

    Raises:
        InputError: The weights and a first token of KV need more than is free.
    """
    need = (shape.weights + shape.kv_values_per_token) * dtype.itemsize
    free = free_bytes(device)
    if need > free:
        allowed = f"a model of at most the {free / 2**30:.1f} GiB that are free on {device.type}"
        raise InputError("model", f"{shape.name}: {need / 2**30:.1f} GiB", allowed)


def kv_capacity_tokens(shape: ModelShape, device: torch.device, dtype: torch.dtype) -> int | None:
    """KV tokens that fit beside the weights and the largest activations so far; None on a CPU.

    To be asked after the largest batch has run and its cache is freed.
    """
    if device.type != "cuda":
        return None
    total = torch.cuda.mem_get_info(device)[1]
    weights = shape.weights * dtype.itemsize
    activations = activation_bytes(shape, 4096, dtype)
    room = (1 - _RESERVE) * total - weights - activations
    return max(int(room // (shape.kv_values_per_token * dtype.itemsize)), 1)


def activation_bytes(shape: ModelShape, tokens: int, dtype: torch.dtype) -> int:
    """Most that the activations of an iteration of so many tokens take at once."""
    widest = 2 * shape.hidden + 3 * shape.mlp
    return tokens * widest * dtype.itemsize


def clocks(device: torch.device) -> str:
    """SM and memory clocks as the driver tells them; "unknown" where it does not."""
    tool = shutil.which("nvidia-smi")
    if device.type != "cuda" or tool is None:
        return "unknown"
    query = [tool, "--query-gpu=clocks.sm,clocks.mem", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def run_record(
    shape: ModelShape,
    device: torch.device,
    dtype: torch.dtype,
    command: str,
    clocks_before: str,
    skipped: tuple[str, ...] = (),
    weights: str = "random weights",
) -> RunRecord:
    """What must be known of a measurement to repeat it."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        versions["cuda"] = str(torch.version.cuda)
    capacity = kv_capacity_tokens(shape, device, dtype)
    how = f"{1 - _RESERVE:.0%} of the memory less weights and activations of 4,096 tokens"
    return RunRecord(
        device=name,
        model=f"{shape.name}, {str(dtype).removeprefix('torch.')}, {weights}",
        command=command,
        date=datetime.date.today().isoformat(),
        versions=versions,
        clocks={"before": clocks_before, "after": clocks(device)},
        kv_capacity_tokens=capacity,
        kv_capacity_how=None if capacity is None else how,
        skipped=skipped,
    )
