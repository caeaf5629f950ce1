"""The card as it is found: name, memory, clocks, and its ceilings, measured."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from tests.gpu.ceilings import BANDWIDTH, OPERATIONS, known_ceilings
from tests.gpu.requirements import driver_version
from tests.gpu.result import DONE, Cell, Result
from tests.gpu.settings import Settings
from validation.measure.device import clocks
from validation.measure.floor import DeviceLimits
from validation.measure.timer import Timer


@dataclass(frozen=True)
class Sizes:
    """Bytes that are copied, far above any cache, and the side of the matrices."""

    copy_bytes: int
    side: int
    dtype: torch.dtype


REAL, TOY = Sizes(4 << 30, 8192, torch.float16), Sizes(8 << 20, 256, torch.float32)


def measure(settings: Settings) -> Iterator[Result]:
    """Identity, then a copy, then a matrix product."""
    device, sizes = torch.device(settings.device), _sizes(settings)
    how = (
        f"bandwidth: a copy of {sizes.copy_bytes >> 20:,} MiB, read and written; operations: a "
        f"product of random {sizes.side:,} × {sizes.side:,} matrices in {sizes.dtype}"
    )
    result = Result("card", figures=identity(device), notes=(how,))
    yield result
    bandwidth = copy_bandwidth(device, sizes.copy_bytes)
    result = replace(result, figures={**result.figures, BANDWIDTH: bandwidth})
    yield result
    rate = product_rate(device, sizes.side, sizes.dtype)
    figures = {**result.figures, OPERATIONS: rate, "clocks_after": clocks(device)}
    yield replace(result, figures=figures, status=DONE)


def identity(device: torch.device) -> dict[str, Cell]:
    """What the card says of itself before any work."""
    if device.type == "cpu":
        return {"name": platform.processor() or platform.machine()}
    told = torch.cuda.get_device_properties(device)
    return {
        "name": told.name,
        "memory_bytes": told.total_memory,
        "free_bytes": torch.cuda.mem_get_info(device)[0],
        "multiprocessors": told.multi_processor_count,
        "compute_capability": f"{told.major}.{told.minor}",
        "driver": driver_version(),
        "clocks_before": clocks(device),
    }


def copy_bandwidth(device: torch.device, copy_bytes: int) -> float:
    """Bytes read and written per second by a copy on the device, of random data."""
    source = torch.randint(0, 256, (copy_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timing = Timer(warm_up=2, repeats=10).time(lambda: target.copy_(source), device)
    return 2 * copy_bytes / timing.median_s


def product_rate(device: torch.device, side: int, dtype: torch.dtype) -> float:
    """Operations per second of a product of two random square matrices."""
    one, two = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    timing = Timer(warm_up=3, repeats=10).time(lambda: one @ two, device)
    return 2 * side**3 / timing.median_s


def ceilings(settings: Settings) -> DeviceLimits:
    """Those that this part has written, or measured now."""
    sizes, device = _sizes(settings), torch.device(settings.device)
    return known_ceilings(settings.out) or DeviceLimits(
        copy_bandwidth(device, sizes.copy_bytes), product_rate(device, sizes.side, sizes.dtype)
    )


def _sizes(settings: Settings) -> Sizes:
    return TOY if settings.toy else REAL
