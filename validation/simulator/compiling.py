"""How kernels are compiled: numba for the CPU, without the GIL, cached on disk.

For CUDA nothing has to be marked: a CUDA kernel may call these functions, and numba-cuda compiles
their Python source once more (see `validation.simulator.cuda`).

numba keys its cache by the file a function stands in and misses changes in the functions it calls.
The cache folder here is therefore named after the text of all kernel sources together: an edit
anywhere compiles everything that could be affected, and nothing stale is ever run. Kernels written
elsewhere, in a notebook say, are not among these sources: neither they nor a loop bound to them is
cached.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numba

_SOURCES = tuple(
    source
    for folder in ("simulator", "simulator/traffic", "policies")
    for source in sorted((Path(__file__).resolve().parents[1] / folder).glob("*.py"))
)
"""All files with kernels."""


@cache
def source_digest() -> str:
    """Sixteen hex digits over numba's version and the simulator's sources as they are on disk."""
    digest = hashlib.sha256(numba.__version__.encode())
    for source in _SOURCES:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "fluidwait" / f"kernels-{source_digest()}"
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
    return _compiled(function, cache=_is_hashed(function))


def _compiled(function: Callable[..., Any], cache: bool) -> Any:
    return numba.njit(cache=cache, nogil=True, error_model="numpy", _nrt=False)(function)


def _is_hashed(function: Any) -> bool:
    """Whether the name of the cache folder changes with the function's source."""
    return Path(function.__code__.co_filename).resolve() in _SOURCES


def bind(template: Any, suffix: str, **functions: Any) -> Any:
    """Compile `template` once more with some of its global functions replaced.

    This is how one engine loop becomes a separate compiled simulator per policy: function values
    passed as arguments would defeat numba's disk cache.
    """
    # Under the CUDA simulator kernels are plain functions.
    cache = all(_is_hashed(getattr(one, "py_func", one)) for one in functions.values())
    return _compiled(rebound(template, suffix, **functions), cache)


def rebound(template: Any, suffix: str, **functions: Any) -> Any:
    """The plain function behind `bind`, not compiled for any target."""
    name = f"{template.__name__}_{suffix}"
    bound = FunctionType(template.__code__, {**template.__globals__, **functions}, name)
    bound.__qualname__ = name
    bound.__module__ = template.__module__
    return bound
