"""Time of an iteration: warm-up, repetitions, median and spread."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

# mypy: disable-error-code="no-untyped-call"


@dataclass(frozen=True)
class Timing:
    """Median and interquartile range of repeated iterations."""

    median_s: float
    spread_s: float


@dataclass(frozen=True)
class Timer:
    """How often to run: `warm_up` times unseen, then `repeats` times; and the clock on a CPU."""

    warm_up: int = 3
    repeats: int = 10
    host_clock: Callable[[], float] = time.perf_counter

    def time(self, step: Callable[[], object], device: torch.device) -> Timing:
        """Time a step; on CUDA with events around it, so that the device's own clock counts."""
        for _ in range(self.warm_up):
            step()
        measure = _cuda_seconds if device.type == "cuda" else self._host_seconds
        taken = [measure(step) for _ in range(self.repeats)]
        low, median, high = np.quantile(taken, [0.25, 0.5, 0.75])
        return Timing(float(median), float(high - low))

    def _host_seconds(self, step: Callable[[], object]) -> float:
        begin = self.host_clock()
        step()
        return self.host_clock() - begin


def _cuda_seconds(step: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
