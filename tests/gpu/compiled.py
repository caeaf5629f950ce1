"""Calls that need numba's compiler, from a process in which the CUDA simulator has replaced it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import TypeVar

Found = TypeVar("Found")

SIMULATOR = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
"""Environment under which kernels for CUDA are plain Python, and those for the CPU do not run."""


def simulated() -> bool:
    """Whether CUDA is simulated in this process."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def compiled(call: Callable[..., Found], *arguments: object) -> Found:
    """What the call returns, here or in a process where numba compiles; all of it is pickled."""
    return (
        _compiling_process().submit(call, *arguments).result() if simulated() else call(*arguments)
    )


@cache
def _compiling_process() -> ProcessPoolExecutor:
    taken = {name: os.environ.pop(name) for name in SIMULATOR}
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    pool.submit(os.getpid).result()
    os.environ.update(taken)
    return pool
