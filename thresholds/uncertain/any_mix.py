"""The pace for a mix of which nothing is known but its classes (THEORY 5.7)."""

from __future__ import annotations

from dataclasses import dataclass

from fluid.errors import InputError
from fluid.server import Server, require_fits
from fluid.steady.intake import intake
from fluid.workload import Workload


@dataclass(frozen=True)
class AnyMixPace:
    """A pace that is best against the worst mix.

    Attributes:
        pace_per_iteration: C/max_j m_j, the largest pace whose residents fit whatever the mix.
        least_rate_per_s: Requests per second that it completes at a backlog of any mix, at least.
        least_share: Least share of what the best pace for the mix that comes would complete.
    """

    pace_per_iteration: float
    least_rate_per_s: float
    least_share: float


def any_mix_pace(workload: Workload, server: Server) -> AnyMixPace:
    """The minimax over the simplex of mixes of a workload's classes, whatever its rates.

    Throughput v/(d0 + v Σ q_j w_j) grows with the pace v, and it and its share of the best pace's,
    1/Σ q_j (w_j + d0 m_j/C), are quotients of linear functions of q: least at a class alone.

    Raises:
        InputError: A request does not fit, or f is not affine.

    >>> import fluidwait as fw
    >>> from thresholds.uncertain.any_mix import any_mix_pace
    >>> load = fw.Workload.of(short=fw.Requests(1.0, 64, 200), long=fw.Requests(1.0, 512, 1000))
    >>> found = any_mix_pace(load, fw.Server.named("paper-long-decode"))
    >>> round(found.pace_per_iteration, 4), round(found.least_share, 2)
    (0.1352, 0.16)
    """
    require_fits(workload, server)
    tau = server.iteration_time
    if not tau.is_affine:
        raise InputError("iteration_time", "f that is not affine", "affine f for any mix")
    curve = intake(workload, server)
    work_s, sums, capacity = curve.added(0.0).request_s, curve.memory_sums, server.usable_kv_tokens
    pace = capacity / float(sums.max())
    time_s = tau.overhead_s + pace * work_s
    shares = pace * (work_s + tau.overhead_s * sums / capacity) / time_s
    return AnyMixPace(pace, pace / float(time_s.max()), float(shares.min()))
