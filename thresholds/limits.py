"""What a practical table sets: pace, cap and watermark (THEORY 3.5, 6.5)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fluid.errors import InputError
from thresholds.checks import is_number, is_whole

PARAMETER_MEANINGS = {
    "pace_per_iteration": "admissions per iteration, on average at most",
    "cap_requests": "requests in service at most",
    "watermark_fraction": "share of the KV cache that admissions leave free",
}
"""What each parameter of a table sets."""


MOST_REQUESTS = 10**9
"""In service, or admitted at once: each holds a token at least."""

LEAST_PACE = 1e-9
"""Admissions per iteration: with less nobody is ever let in."""

MOST_WATERMARK = 0.99
"""Share of memory; the rest must hold somebody."""


@dataclass(frozen=True)
class Limits:
    """Restraints on admission; None, or a watermark of 0, where there is none.

    Attributes:
        pace_per_iteration: Admissions per iteration, on average at most (THEORY 3.5), from
            1e-9.
        cap_requests: Requests in service at most; a whole number, 1 or more.
        watermark_fraction: Share of the KV cache that admissions leave free, from 0 to 0.99.

    Raises:
        InputError: Naming the first that is out of range.

    >>> import fluidwait as fw
    >>> fw.Limits(pace_per_iteration=0.5, watermark_fraction=0.01)
    Limits(pace_per_iteration=0.5, cap_requests=None, watermark_fraction=0.01)
    """

    pace_per_iteration: float | None = None
    cap_requests: int | None = None
    watermark_fraction: float = 0.0

    def __post_init__(self) -> None:
        pace, cap, watermark = self.pace_per_iteration, self.cap_requests, self.watermark_fraction
        if pace is not None and not (is_number(pace) and LEAST_PACE <= pace <= MOST_REQUESTS):
            allowed = f"a number > 0, {LEAST_PACE:g} to {MOST_REQUESTS:g}, or None"
            raise InputError("pace_per_iteration", pace, allowed)
        if cap is not None:
            if not (is_whole(cap) and 1 <= cap <= MOST_REQUESTS):
                allowed = f"a whole number, 1 or more, {MOST_REQUESTS:g} at most, or None"
                raise InputError("cap_requests", cap, allowed)
            object.__setattr__(self, "cap_requests", int(cap))
        if not (is_number(watermark) and 0 <= watermark <= MOST_WATERMARK):
            allowed = f"from 0 to below 1, {MOST_WATERMARK} at most"
            raise InputError("watermark_fraction", watermark, allowed)

    @classmethod
    def of_params(cls, params: Mapping[str, int | float]) -> Limits:
        """The restraints among the parameters of a table; others are left out.

        Raises:
            InputError: Naming a restraint that is out of range.
        """
        return cls(**{name: params[name] for name in PARAMETER_MEANINGS if name in params})  # type: ignore[arg-type]

    @property
    def params(self) -> dict[str, int | float]:
        """The restraints that there are, by the names of a table."""
        given = {name: getattr(self, name) for name in PARAMETER_MEANINGS}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def pace(self) -> float:
        """Admissions per iteration at most; infinite where there is no pace."""
        return math.inf if self.pace_per_iteration is None else self.pace_per_iteration

    @property
    def cap(self) -> float:
        """Requests in service at most; infinite where there is no cap."""
        return math.inf if self.cap_requests is None else self.cap_requests
