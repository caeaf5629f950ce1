"""Runs replications on the device that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from fluid.errors import InputError
from validation.simulator import cpu
from validation.simulator.metrics import Replication
from validation.simulator.model import Model
from validation.simulator.runs import require_known_device


def run(
    model: Model,
    jobs: Sequence[cpu.Job],
    requests: int,
    *,
    device: str = "cpu",
    threads: int | None = None,
    on_done: Callable[[], None] | None = None,
) -> list[Replication]:
    """Run every job; results come in the order of the jobs.

    Both devices compile the same source. Their logarithms differ in the last bit and CUDA contracts
    products with sums, so that times agree to about 1e-12 and events in order, ties apart.

    Args:
        requests: Arrivals per replication; a tape runs at its own length.
        device: "cpu", "cuda", or "auto" for CUDA where it is available.
        threads: Of the CPU; all of its cores if None.
        on_done: Called after each replication.

    Raises:
        InputError: No jobs, no requests, a policy that cannot run this model, or no such device.
    """
    if chosen_device(device) == "cpu":
        return cpu.run(model, jobs, requests, threads, on_done)
    from validation.simulator import cuda

    return cuda.run(model, jobs, requests, on_done)


def chosen_device(device: str) -> str:
    """ "cpu" or "cuda".

    Raises:
        InputError: An unknown device, or CUDA where it is not available.
    """
    require_known_device(device)
    if device == "cpu":
        return device
    reason = why_no_cuda()
    if reason is None:
        return "cuda"
    if device == "cuda":
        raise InputError("device", device, f"cpu, as no CUDA device is available: {reason}")
    return "cpu"


def why_no_cuda() -> str | None:
    """What is missing for CUDA in one line, or None where everything is there."""
    if find_spec("numba_cuda") is None:
        return "numba-cuda is not installed (pip install fluidwait[cuda])"
    from numba import cuda

    if cuda.is_available():
        return _why_no_kernels()
    error = cuda.cuda_error() or "the NVVM compiler is missing (pip install fluidwait[cuda])"
    return " ".join(str(error).split())


def _why_no_kernels() -> str | None:
    """What numba-cuda lacks in the NumPy that is installed: it shows with the first kernel."""
    from numba import config

    if config.ENABLE_CUDASIM:
        return None
    try:
        import_module("numba.cuda.cudaimpl")
    except AttributeError as error:
        return f"numba-cuda does not go with NumPy {np.__version__}: {error}"
    return None
