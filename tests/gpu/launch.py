"""Replications on a device, timed without what the host does before and after."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda as numba_cuda

from tests.benchmarks.loads import BYTES_PER_ITERATION, BYTES_PER_REQUEST
from validation.policies import parse_policy
from validation.simulator import cuda
from validation.simulator.cpu import Job
from validation.simulator.model import Model
from validation.simulator.state import new_lane

# mypy: disable-error-code="no-untyped-call"


@dataclass(frozen=True)
class Launch:
    """Replications that ran at once.

    Attributes:
        residents: In service, in the mean over time and replications.
    """

    replications: int
    requests: int
    seconds: float
    iterations: int
    residents: float

    @property
    def iterations_per_s(self) -> float:
        """Of all replications together."""
        return self.iterations / self.seconds

    @property
    def requests_per_s(self) -> float:
        """Of all replications together."""
        return self.replications * self.requests / self.seconds

    @property
    def least_bytes_per_s(self) -> float:
        """Scalars once in every iteration, and what comes and goes with a request."""
        return self.iterations_per_s * BYTES_PER_ITERATION + self.requests_per_s * BYTES_PER_REQUEST


@dataclass(frozen=True)
class KernelCost:
    """Of a compiled kernel, by thread; None where the device is simulated.

    Attributes:
        warps: That a multiprocessor holds at once, a block of few threads in each.
    """

    registers: int | None = None
    local_bytes: int | None = None
    warps: int | None = None


def launch(
    model: Model,
    policy: str,
    replications: int,
    requests: int,
    *,
    threads_per_block: int | None = None,
    kernel: Any = None,
) -> Launch:
    """Run replications 0, 1, … of a policy at once; all memory is freed again.

    Args:
        threads_per_block: Those that the simulator would take where None.
        kernel: In place of the policy's own, compiled otherwise.
    """
    configured = parse_policy(policy)
    *read, records, params, thresholds = cuda.host_arguments(model, [Job(configured, 0)])
    records, params, thresholds = (
        np.repeat(part, replications, axis=0) for part in (records, params, thresholds)
    )
    records["replication"] = np.arange(replications)
    given = [numba_cuda.to_device(part) for part in (*read, records, params, thresholds)]
    lanes = {
        name: numba_cuda.device_array((replications, *part.shape), part.dtype)
        for name, part in new_lane(model, requests)._asdict().items()
    }
    kernel = kernel or cuda.compiled(configured.policy, reacts=False)
    grid = cuda.grid(replications)
    if threads_per_block is not None:
        grid = (-(-replications // threads_per_block), threads_per_block)
    numba_cuda.synchronize()
    begin = time.perf_counter()
    kernel[grid](*given, *lanes.values())
    numba_cuda.synchronize()
    seconds = time.perf_counter() - begin
    scalars = lanes["scalars"].copy_to_host()
    window_s = scalars["window_end_s"] - scalars["window_start_s"]
    residents = float((scalars["resident_integral"] / window_s).mean())
    return Launch(replications, requests, seconds, int(scalars["iterations"].sum()), residents)


def kernel_cost(policy: str) -> KernelCost:
    """Of the kernel as it was compiled at its first launch."""
    kernel: Any = cuda.compiled(parse_policy(policy).policy, reacts=False)
    if not hasattr(kernel, "get_regs_per_thread"):
        return KernelCost()
    overload = next(iter(kernel.overloads.values()))
    return KernelCost(overload.regs_per_thread, overload.local_mem_per_thread, _warps(overload))


def _warps(overload: Any) -> int | None:
    """None where this numba-cuda does not tell."""
    try:
        return int(
            numba_cuda.current_context().get_active_blocks_per_multiprocessor(
                overload._codelibrary.get_cufunc(), cuda.MOST_THREADS_PER_BLOCK, 0
            )
        )
    except Exception:
        return None
