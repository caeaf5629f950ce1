"""Kernels compiled by numba, with a cache on disk that can be lost but never in the way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
from numba.core.caching import FunctionCache


def compiled(
    cache: bool = True, from_python: bool = True, **options: Any
) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with these options, whose cache is discarded where it cannot be read.

    Args:
        cache: Whether the compiled code is kept on disk.
        from_python: Whether Python calls the function. One that only compiled functions call is
            compiled a third faster without the way in.
    """
    options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": not from_python}

    def decorated(function: Callable[..., Any]) -> Any:
        kernel = numba.njit(**options)(function)
        # Nothing is compiled, and nothing cached, where numba is switched off or simulates CUDA.
        if cache and hasattr(kernel, "_cache"):
            with suppress(RuntimeError):  # nowhere to write: compiled anew each time
                kernel._cache = _Cache(function)
        if not from_python and hasattr(kernel, "overloads"):
            _close(kernel)
        return kernel

    return decorated


def _close(kernel: Any) -> None:
    """Let a call from Python end with an error; it would jump to an address that is not there."""

    def refused(*args: Any, **keywords: Any) -> Any:
        raise TypeError(f"{kernel.__name__} is called by compiled functions only")

    kernel._insert = lambda *overload: None
    kernel._compile_for_args = refused


class _Cache(FunctionCache):  # type: ignore[misc]
    """numba's cache of one function; a file cut short, or a full disk, costs a compilation only."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling of anything may raise
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError, EOFError):
            super().save_overload(sig, data)
