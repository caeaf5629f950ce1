"""How much of a device's memory can be had, found by taking it."""

from __future__ import annotations

import torch

from validation.measure.design import Composition
from validation.measure.model import Decoder
from validation.measure.shapes import ModelShape
from validation.measure.timed_batches import measure_batch
from validation.measure.timer import Timer


def allocatable_bytes(device: torch.device, block_bytes: int, most_bytes: int) -> int:
    """Memory that is left, in blocks that are taken until there are no more, then given back.

    Args:
        most_bytes: Where to stop on a device that would swap rather than refuse.
    """
    blocks: list[torch.Tensor] = []
    while len(blocks) * block_bytes < most_bytes:
        try:
            blocks.append(torch.empty(block_bytes, dtype=torch.uint8, device=device))
        except torch.OutOfMemoryError:
            break
    taken = len(blocks) * block_bytes
    blocks.clear()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return taken


def activation_bytes(decoder: Decoder, batch: Composition) -> int:
    """Most memory that an iteration holds beside weights and KV; on a CPU 0, as nothing tells."""
    weight = decoder.lm_head.weight
    if weight.device.type != "cuda":
        return 0
    held = torch.cuda.memory_allocated(weight.device)
    torch.cuda.reset_peak_memory_stats(weight.device)
    measure_batch(decoder, batch, Timer(warm_up=0, repeats=1))
    peak = torch.cuda.max_memory_allocated(weight.device)
    torch.cuda.empty_cache()
    return peak - held - _cache_bytes(decoder.shape, batch, weight.dtype)


def _cache_bytes(shape: ModelShape, batch: Composition, dtype: torch.dtype) -> int:
    return batch.slots * batch.length * shape.kv_values_per_token * dtype.itemsize
