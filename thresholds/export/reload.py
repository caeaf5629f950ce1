"""Noticing that a table file was replaced while an engine runs."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

LEAST_S = 1.0
"""Between two looks at the file."""


@dataclass
class TableFile:
    """A file, and what was last seen of it.

    Attributes:
        path: Where it lies.
    """

    path: str

    def __post_init__(self) -> None:
        self._seen = self._state()
        self._looked_at_s = -math.inf

    def is_new(self, now_s: float) -> bool:
        """Whether there is another file than at the last look; looks once a second at most.

        A file that is gone is no new one: it may be about to be replaced.
        """
        if 0 <= now_s - self._looked_at_s < LEAST_S:
            return False
        self._looked_at_s = now_s
        state = self._state()
        if state is None or state == self._seen:
            return False
        self._seen = state
        return True

    def _state(self) -> tuple[int, int] | None:
        """Time of modification and size; None where there is no file."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size
