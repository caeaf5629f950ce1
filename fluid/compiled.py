"""Kernels compiled by numba, with a cache on disk that can be lost but never in the way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
from numba.core.caching import FunctionCache


def compiled(cache: bool = True, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with these options, whose cache is discarded where it cannot be read.

    Args:
        cache: Whether the compiled code is kept on disk.
    """

    def decorated(function: Callable[..., Any]) -> Any:
        kernel = numba.njit(**options)(function)
        # Nothing is compiled, and nothing cached, where numba is switched off or simulates CUDA.
        if cache and hasattr(kernel, "_cache"):
            with suppress(RuntimeError):  # nowhere to write: compiled anew each time
                kernel._cache = _Cache(function)
        return kernel

    return decorated


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
