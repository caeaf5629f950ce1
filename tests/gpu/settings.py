"""What every part of the check is told: where results go, at what size, and until when."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Settings:
    """Of one part in one run.

    Attributes:
        out: Folder of all results; a part reads there what earlier ones wrote.
        toy: Everything tiny and on the processor, CUDA kernels in numba's simulator.
        stop_at_s: Seconds since the epoch after which no further measurement begins.
    """

    out: Path
    toy: bool
    stop_at_s: float

    @property
    def device(self) -> str:
        """Where torch computes."""
        return "cpu" if self.toy else "cuda"

    def left_s(self) -> float:
        """Seconds until no further measurement begins."""
        return self.stop_at_s - time.time()

    def met(self, condition: bool) -> bool | None:
        """Whether an aim is met; a toy size says nothing of it."""
        return None if self.toy else condition

    def while_time(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, until the time is up."""
        for item in items:
            if self.left_s() <= 0:
                return
            yield item
