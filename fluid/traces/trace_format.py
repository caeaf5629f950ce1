"""What a format of traces is: how its files are told from others, and how they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fluid.traces.snapshot import Snapshot
from fluid.traces.trace import ReadOptions, Trace


@dataclass(frozen=True)
class TraceFormat:
    """A format of traces.

    Attributes:
        summary: What its files are, in a few words.
        detect: Whether a file with this beginning (text, some KiB) is of this format.
        open: Opens a file; raises `InputError` naming file, place, value and what is allowed, at
            once or while chunks are taken.
    """

    name: str
    summary: str
    detect: Callable[[str], bool]
    open: Callable[[Path, ReadOptions], Trace | Snapshot]
