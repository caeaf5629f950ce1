"""Runs pickled jobs under numba's CUDA simulator, for test_cuda.py.

Started with NUMBA_ENABLE_CUDASIM=1 and NUMBA_DISABLE_JIT=1, so that all kernels are plain Python.
`dask worker --preload` of this file makes a worker with a simulated device, for test_cluster.py.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

from numba.cuda.simulator.cudadrv.devicearray import FakeWithinKernelCUDAArray

from validation.policies import POLICIES
from validation.simulator import cuda
from validation.simulator.cpu import Job

_attribute = FakeWithinKernelCUDAArray.__getattr__
_assign = FakeWithinKernelCUDAArray.__setitem__


def _field_first(self: Any, name: str) -> Any:
    """Compiled code knows only fields of a record, the simulator NumPy's own `shape` first."""
    names = self._item._ary.dtype.names or ()
    if name in names and self._item._ary.ndim == 0:
        return self._item._ary[name]
    return _attribute(self, name)


def _assign_record(self: Any, index: Any, value: Any) -> None:
    """Compiled code copies a record into another, which the simulator has to be told."""
    if isinstance(value, FakeWithinKernelCUDAArray):
        value = value._item._ary
    _assign(self, index, value)


def patch() -> None:
    """Mend what numba's simulator does unlike compiled code."""
    FakeWithinKernelCUDAArray.__getattr__ = _field_first
    FakeWithinKernelCUDAArray.__setitem__ = _assign_record


def dask_setup(worker: object) -> None:
    """Called by Dask when the worker starts."""
    patch()


def main(task: Path, answer: Path) -> None:
    patch()
    found = []
    for model, named, requests in pickle.loads(task.read_bytes()):
        jobs = [
            Job(POLICIES[name].configure({}, thresholds), replication, seed, rate_scale)
            for name, thresholds, replication, seed, rate_scale in named
        ]
        found.append(cuda.run(model, jobs, requests))
    answer.write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
