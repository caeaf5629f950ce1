"""Mean times of work-conserving service to first order (THEORY 2.6).

They need no law of the iteration time, and are low where prompts come in lumps or f has steps:
predictions are those of `fluid.steady.latency`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.stages import StageSums
from fluid.steady.intake import Added

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MeanTimes:
    """Means in seconds over the requests of a class, or of all.

    Attributes:
        ttft_s: Arrival to first output token.
        tpot_s: Time between output tokens; None with one output token.
        latency_s: Arrival to completion.
    """

    ttft_s: float
    tpot_s: float | None
    latency_s: float


@dataclass(frozen=True, eq=False)
class ClassTimes:
    """`MeanTimes` of every class; arrays of shape (m,), `tpot_s` NaN with one output token."""

    ttft_s: Floats
    tpot_s: Floats
    latency_s: Floats

    def of_class(self, index: int) -> MeanTimes:
        """Those of one class."""
        tpot_s = float(self.tpot_s[index])
        return MeanTimes(
            float(self.ttft_s[index]),
            None if np.isnan(tpot_s) else tpot_s,
            float(self.latency_s[index]),
        )

    def over_all(self, rates_per_s: Floats) -> MeanTimes:
        """Means over all requests; TPOT is that of the requests with two outputs or more."""
        shares = rates_per_s / rates_per_s.sum()
        decoding = ~np.isnan(self.tpot_s)
        tpot_s = None
        if decoding.any():
            some = rates_per_s[decoding]
            tpot_s = float(some @ self.tpot_s[decoding] / some.sum())
        return MeanTimes(float(shares @ self.ttft_s), tpot_s, float(shares @ self.latency_s))


def first_order_times(sums: StageSums, added: Added, iteration_s: float) -> ClassTimes:
    """D(k) = (k + ½)·ΔT* + Σ_{s<k} a(s) at the first and the last token.

    The first k stages wait half an iteration until the next one starts, last k of them, and take
    what the request itself adds to each, a(s).

    Args:
        iteration_s: ΔT*.
    """
    gaps = sums.decodes - sums.first_decodes
    ttft_s = (sums.count - gaps + 0.5) * iteration_s + added.first_s
    latency_s = (sums.count + 0.5) * iteration_s + added.request_s
    tpot_s = np.where(gaps > 0, (latency_s - ttft_s) / np.maximum(gaps, 1), np.nan)
    return ClassTimes(ttft_s, tpot_s, latency_s)
