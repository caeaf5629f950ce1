"""Recorded arrivals: one reader per trace format, the tape they become, and their summary."""

from __future__ import annotations

from fluid.traces.digest import Digest, digest
from fluid.traces.prompt_blocks import PromptBlocks
from fluid.traces.registry import (
    TRACE_FORMATS,
    detect_format,
    named_format,
    open_trace,
    read_trace,
)
from fluid.traces.snapshot import Snapshot
from fluid.traces.strata import summary_errors, workload_of_digest
from fluid.traces.summarise import TraceSummary, summarise_trace
from fluid.traces.tape import Tape
from fluid.traces.tape_csv import read_tape, tape_writer, write_tape
from fluid.traces.trace import Chunk, ReadOptions, Trace
from fluid.traces.trace_format import TraceFormat

__all__ = [
    "TRACE_FORMATS",
    "Chunk",
    "Digest",
    "PromptBlocks",
    "ReadOptions",
    "Snapshot",
    "Tape",
    "Trace",
    "TraceFormat",
    "TraceSummary",
    "detect_format",
    "digest",
    "named_format",
    "open_trace",
    "read_tape",
    "read_trace",
    "summarise_trace",
    "summary_errors",
    "tape_writer",
    "workload_of_digest",
    "write_tape",
]
