"""Mean times of work-conserving service to first order (THEORY 2.6).

They need no law of the iteration time, and are low where prompts come in lumps or f has steps:
predictions are those of `fluid.steady.latency`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.stages import Stages

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


def first_order_times(stages: Stages, added_s: Floats, iteration_s: float) -> MeanTimes:
    """D(k) = (k + ½)·ΔT* + Σ_{s<k} a(s) at the first and the last token.

    The first k stages wait half an iteration until the next one starts, last k of them, and take
    what the request itself adds to each.

    Args:
        added_s: a(s), seconds that the request adds to each of its stages.
        iteration_s: ΔT*.
    """
    through_first = stages.first_output + 1
    ttft_s = (through_first + 0.5) * iteration_s + float(added_s[:through_first].sum())
    latency_s = (stages.count + 0.5) * iteration_s + float(added_s.sum())
    gaps = stages.count - through_first
    return MeanTimes(ttft_s, (latency_s - ttft_s) / gaps if gaps else None, latency_s)


def over_all(classes: Iterable[tuple[float, MeanTimes]]) -> MeanTimes | None:
    """Means over all requests of classes with these rates; None without classes.

    TPOT is that of the requests with two outputs or more.
    """
    known = list(classes)
    if not known:
        return None
    rates = np.array([rate for rate, _ in known])
    decoding = [(rate, one.tpot_s) for rate, one in known if one.tpot_s is not None]
    shares = rates / rates.sum()
    return MeanTimes(
        ttft_s=float(shares @ [one.ttft_s for _, one in known]),
        tpot_s=sum(rate * tpot_s for rate, tpot_s in decoding) / sum(rate for rate, _ in decoding)
        if decoding
        else None,
        latency_s=float(shares @ [one.latency_s for _, one in known]),
    )
