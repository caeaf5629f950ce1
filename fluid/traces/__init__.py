"""Recorded arrivals: one reader per trace format, the tape they become, and its summary."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fluid.traces.azure import read_azure
from fluid.traces.summarise import summarise, summary_errors, write_workload
from fluid.traces.tape import Tape, read_tape, write_tape

TRACE_READERS: dict[str, Callable[[str | Path], Tape]] = {
    "azure": read_azure,
    "tape": read_tape,
}

__all__ = [
    "TRACE_READERS",
    "Tape",
    "read_azure",
    "read_tape",
    "summarise",
    "summary_errors",
    "write_tape",
    "write_workload",
]
