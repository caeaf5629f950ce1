"""How the fluid admits: greedy, with what restrains it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fluid.errors import InputError
from fluid.server import Server
from fluid.transient.inputs import Gate


@dataclass(frozen=True)
class Admission:
    """Greedy admission and what restrains it (POLICIES "greedy").

    Attributes:
        watermark: Share of memory kept free at admission.
        cap: Most residents.
        pace: Admissions per iteration; credit starts at 1 and is capped at 1 + pace.

    Raises:
        InputError: A value out of range.
    """

    watermark: float = 0.0
    cap: float = math.inf
    pace: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.watermark < 1:
            raise InputError("watermark", self.watermark, "a share from 0 to below 1")
        if not self.cap >= 1:
            raise InputError("cap", self.cap, "at least 1")
        if not self.pace >= 0:
            raise InputError("pace", self.pace, "at least 0")

    def gate(self, server: Server) -> Gate:
        """The same in tokens of a server."""
        capacity = float(server.usable_kv_tokens)
        return Gate(capacity, capacity * (1 - self.watermark), self.cap, self.pace)
