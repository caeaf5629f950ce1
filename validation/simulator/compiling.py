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

import atexit
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numba

from fluid.compiled import compiled

_SOURCES = tuple(
    source
    for folder in ("simulator", "simulator/prefix", "simulator/traffic", "policies")
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
        return _passing_folder()
    return folder if os.access(folder, os.W_OK) else _passing_folder()


def _passing_folder() -> Path:
    """A folder for this process in the user's own place for temporary files, removed at exit.

    Kernels are code: a place that others could write to is not taken.
    """
    home = Path(tempfile.gettempdir()) / f"fluidwait-{os.getuid()}"
    with suppress(OSError):
        home.mkdir(mode=0o700, exist_ok=True)
    seen = home.lstat() if home.exists() else None
    is_own = seen is not None and stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid()
    if seen is None or not is_own or seen.st_mode & 0o077:
        home = Path(tempfile.mkdtemp(prefix="fluidwait-"))
    folder = Path(tempfile.mkdtemp(prefix="kernels-", dir=home))
    atexit.register(_remove, folder)
    return folder


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another process is still there
        folder.parent.rmdir()


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = str(_cache_folder())


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of the simulator that other kernels call, and that Python cannot call.

    Kernels allocate nothing. Saying so (`_nrt=False`) spares numba the reference counts of every
    array at every call, which halves the time of an iteration. Without a way in from Python all
    kernels of a policy compile in two thirds of the time.
    """
    is_hashed = _is_hashed(function)
    return _compiled(function, cache=is_hashed, from_python=not is_hashed)


def called_kernel(function: Callable[..., Any]) -> Any:
    """The same for one that Python calls too."""
    return _compiled(function, cache=_is_hashed(function))


def inlined(function: Callable[..., Any]) -> Any:
    """A kernel that becomes part of every kernel that calls it, and that Python cannot call.

    Every call hands over the arrays of a lane one field at a time, which takes longer than an
    ordinary iteration.
    """
    is_hashed = _is_hashed(function)
    return _compiled(function, cache=is_hashed, from_python=not is_hashed, forceinline=True)


def called_inlined(function: Callable[..., Any]) -> Any:
    """The same for one that Python calls too."""
    return _compiled(function, cache=_is_hashed(function), forceinline=True)


def _compiled(function: Callable[..., Any], **options: bool) -> Any:
    return compiled(nogil=True, error_model="numpy", _nrt=False, **options)(function)


def _is_hashed(function: Any) -> bool:
    """Whether the name of the cache folder changes with the function's source."""
    return Path(function.__code__.co_filename).resolve() in _SOURCES


def bind(template: Any, suffix: str, functions: Mapping[str, Any], **constants: Any) -> Any:
    """Compile `template` once more with some of its global functions and constants replaced.

    This is how one engine loop becomes a separate compiled simulator per policy: function values
    passed as arguments would defeat numba's disk cache.
    """
    # Under the CUDA simulator kernels are plain functions.
    cache = all(_is_hashed(getattr(one, "py_func", one)) for one in functions.values())
    return _compiled(rebound(template, suffix, **functions, **constants), cache=cache)


def rebound(template: Any, suffix: str, **values: Any) -> Any:
    """The plain function behind `bind`, not compiled for any target."""
    name = f"{template.__name__}_{suffix}"
    bound = FunctionType(template.__code__, {**template.__globals__, **values}, name)
    bound.__qualname__ = name
    bound.__module__ = template.__module__
    return bound
