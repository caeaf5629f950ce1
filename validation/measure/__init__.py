"""Iteration times of a real device, and the server that they make.

Names that need torch are imported when they are used.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULE_OF = {
    "BatchDesign": "design",
    "Target": "target",
    "Timer": "timer",
    "calibrate": "calibrate",
    "measure_batches": "run",
    "read_measurements": "importers",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
