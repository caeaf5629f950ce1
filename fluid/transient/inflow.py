"""Arrivals that vary in time: piecewise constant rates and bursts (THEORY 5.1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.workload import Workload

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RateProfile:
    """Arrival rates per class, constant between changes; the last ones hold for ever.

    Attributes:
        starts_s: When each row of rates begins, from 0 on, increasing, shape (pieces,).
        rates_per_s: λ_j from then on, shape (pieces, classes).

    Raises:
        InputError: Naming the field that is not allowed.
    """

    starts_s: Floats
    rates_per_s: Floats

    def __post_init__(self) -> None:
        starts = np.array(self.starts_s, dtype=float)
        rates = np.array(self.rates_per_s, dtype=float)
        if starts.ndim != 1 or len(starts) == 0 or starts[0] != 0 or (np.diff(starts) <= 0).any():
            raise InputError("starts_s", starts.tolist(), "increasing seconds from 0")
        if rates.ndim != 2 or len(rates) != len(starts):
            raise InputError("rates_per_s", f"shape {rates.shape}", f"{len(starts)} rows of rates")
        if not (np.isfinite(rates).all() and (rates >= 0).all()):
            raise InputError("rates_per_s", rates.tolist(), "finite rates ≥ 0")
        object.__setattr__(self, "starts_s", starts)
        object.__setattr__(self, "rates_per_s", rates)

    @classmethod
    def steps(
        cls, workload: Workload, factors: Sequence[float] = (1.0,), starts_s: Sequence[float] = (0,)
    ) -> RateProfile:
        """Multiples of the rates of a workload, `factors[k]` from `starts_s[k]` on."""
        rates = [one.rate_per_s for one in workload.classes]
        return cls(np.asarray(starts_s, dtype=float), np.outer(factors, rates))

    @classmethod
    def of(cls, workload: Workload, horizon_s: float) -> RateProfile:
        """The rates of a workload with its own rate profile, if it has one, up to a horizon."""
        pieces = workload.rate_profile
        if pieces is None:
            return cls.steps(workload)
        cycles = math.ceil(horizon_s / workload.period_s) if workload.period_s else 1
        begins_s = np.arange(cycles) * (workload.period_s or 0.0)
        starts_s = np.add.outer(begins_s, [one.start_s for one in pieces]).ravel()
        return cls(starts_s, np.tile(workload.factors, (cycles, 1)) * workload.rates_per_s)

    @classmethod
    def sampled(
        cls, workload: Workload, factor: Callable[[float], float], horizon_s: float, step_s: float
    ) -> RateProfile:
        """Multiples given by a function of time, held at its value amid each step."""
        starts = np.arange(0.0, horizon_s, step_s)
        return cls.steps(workload, [factor(float(s) + step_s / 2) for s in starts], starts.tolist())

    def arrived(self, time_s: float) -> Floats:
        """Mass of each class that has arrived by a time, shape (classes,)."""
        ends = np.append(self.starts_s[1:], np.inf)
        spans = np.clip(np.minimum(ends, time_s) - self.starts_s, 0.0, None)
        return np.asarray(spans @ self.rates_per_s)


@dataclass(frozen=True)
class Burst:
    """Requests that arrive at one instant, in the mix of the workload unless a class is named.

    Raises:
        InputError: Naming the field that is not allowed.
    """

    time_s: float
    requests: float
    class_name: str | None = None

    def __post_init__(self) -> None:
        for field in ("time_s", "requests"):
            value = getattr(self, field)
            if not 0 <= value < np.inf:
                raise InputError(f"burst: {field}", value, "a finite number ≥ 0")

    def masses(self, workload: Workload) -> Floats:
        """Mass per class, shape (classes,).

        Raises:
            InputError: The workload has no class of that name.
        """
        names = [one.name for one in workload.classes]
        if self.class_name is None:
            return self.requests * workload.shares
        if self.class_name not in names:
            raise InputError("burst: class_name", self.class_name, "one of " + ", ".join(names))
        return np.array([self.requests * (name == self.class_name) for name in names])
