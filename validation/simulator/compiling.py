"""How kernels are compiled: numba for the CPU, without the GIL, cached on disk.

For CUDA nothing has to be marked: a CUDA kernel may call these functions, and numba-cuda compiles
their Python source once more (see `validation.simulator.cuda`).

numba keys its cache by the file a function stands in and misses changes in the functions it calls.
The cache folder here is therefore named after the text of all kernel sources together: an edit
anywhere compiles everything that could be affected, and nothing stale is ever run.
"""

from __future__ import annotations

import hashlib
import linecache
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import numba


def _cache_folder() -> Path:
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(numba.__version__.encode())
    for part in ("simulator", "policies"):
        for source in sorted((package / part).glob("*.py")):
            digest.update(source.read_bytes())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "fluidwait" / f"kernels-{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="fluidwait-kernels-"))
    return folder


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(_cache_folder())


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of the simulator; it may call other kernels.

    Kernels allocate nothing. Saying so (`_nrt=False`) spares numba the reference counts of every
    array at every call, which halves the time of an iteration.
    """
    return numba.njit(cache=True, nogil=True, error_model="numpy", _nrt=False)(function)


def bind(template: Any, suffix: str, **functions: Any) -> Any:
    """Compile `template` once more with some of its global functions replaced.

    This is how one engine loop becomes a separate compiled simulator per policy: function values
    passed as arguments would defeat numba's disk cache. The name carries a digest of their files,
    since those of users' own policies do not count for the cache folder.
    """
    digest = hashlib.sha256()
    for function in functions.values():
        lines = linecache.getlines(function.py_func.__code__.co_filename)
        digest.update("".join(lines).encode())
    return kernel(rebound(template, f"{suffix}_{digest.hexdigest()[:8]}", **functions))


def rebound(template: Any, suffix: str, **functions: Any) -> Any:
    """The plain function behind `bind`, not compiled for any target."""
    name = f"{template.__name__}_{suffix}"
    bound = FunctionType(template.__code__, {**template.__globals__, **functions}, name)
    bound.__qualname__ = name
    bound.__module__ = template.__module__
    return bound
