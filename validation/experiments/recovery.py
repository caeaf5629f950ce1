"""Recovery from a burst: how long until the server is back where it was, if ever (THEORY 6.4).

B requests arrive at one instant on top of a path of the model's own arrivals. The server has
recovered by the criterion of `metastable`: from some time on, for two mean times in the system, no
more wait than the median before the burst plus `BACKLOG_REQUESTS`. It never will where the backlog
keeps growing after the burst, by the verdict of `validation.simulator.backlog`: greedy admission
can collapse for good. Otherwise a path that ends first shows only that it takes longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.transient.metastable import Criterion
from validation.policies import ConfiguredPolicy
from validation.simulator import cpu
from validation.simulator.backlog import grows_after
from validation.simulator.metrics import interval
from validation.simulator.model import TAPE_ROW, Model

BURST_AT = 0.2
"""Share of the arrivals before the burst."""

BACKLOG_REQUESTS = 10.0
"""Waiting beyond the usual that still counts as recovered."""

SETTLED_AT = 0.05
"""Share of the arrivals after which the server counts as warm."""

_LEAST_S = 1e-3
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Recovery:
    """Recovery of one policy from one burst at one rate.

    Attributes:
        recovered_share: Share of the replications that came back before the arrivals ended.
        collapsed_share: Share that did not, and whose backlog grows after the burst.
        recovery_s, recovery_half_width_s: Mean time over those, with its 95 % half width; None
            where too few came back.
        horizon_s: Mean time from the burst to the end of the arrivals.
    """

    policy: str
    rate_per_s: float
    burst_requests: int
    replications: int
    recovered_share: float
    recovery_s: float | None
    recovery_half_width_s: float | None
    horizon_s: float
    collapsed_share: float = 0.0

    @property
    def outcome(self) -> str:
        """The time, or what is known where no replication came back."""
        if self.recovery_s is not None:
            return f"{self.recovery_s:.3g} s"
        if self.collapsed_share > 0.5:
            return "never"
        return f"not within {self.horizon_s:.3g} s"

    def as_dict(self) -> dict[str, Any]:
        """Plain data with the field names as keys, ready for JSON."""
        return asdict(self)


def recovery(
    model: Model,
    policy: ConfiguredPolicy,
    burst_requests: int,
    *,
    rate_per_s: float,
    replications: int,
    requests: int,
    seed: int = 0,
    on_done: Callable[[], None] | None = None,
) -> Recovery:
    """Simulate the burst in every replication.

    Raises:
        InputError: No burst, no replications, or a recorded tape, which has one path only.
    """
    if burst_requests < 1:
        raise InputError("burst", burst_requests, "at least 1 request")
    if replications < 1:
        raise InputError("replications", replications, "at least 1")
    if model.tape.size:
        raise InputError("burst", burst_requests, "a workload's own arrivals, no tape")
    scale = rate_per_s / model.rate_per_s
    times, horizons, collapsed = [], [], 0
    for replication in range(replications):
        job = cpu.Job(policy, replication, seed, scale)
        recovered_s, horizon_s, grows = _one_path(model, job, burst_requests, requests)
        collapsed += recovered_s is None and grows
        times.append(recovered_s)
        horizons.append(horizon_s)
        if on_done:
            on_done()
    back = [one for one in times if one is not None]
    mean = interval(back) if back else None
    return Recovery(
        policy=policy.label,
        rate_per_s=rate_per_s,
        burst_requests=burst_requests,
        replications=replications,
        recovered_share=len(back) / replications,
        recovery_s=mean.mean if mean else None,
        recovery_half_width_s=mean.half_width if mean and len(back) > 1 else None,
        horizon_s=float(np.mean(horizons)),
        collapsed_share=collapsed / replications,
    )


def _one_path(
    model: Model, job: cpu.Job, burst: int, requests: int
) -> tuple[float | None, float, bool]:
    """Seconds from burst to recovery (None: not seen) and to the end; whether the backlog grows."""
    arrivals = cpu.run_traced(model, job, requests)
    burst_at_s = float(arrivals.arrived_at_s[int(BURST_AT * requests)])
    settled_s = float(arrivals.arrived_at_s[int(SETTLED_AT * requests)])
    last_s = float(arrivals.arrived_at_s[-1])
    disturbed = with_burst(model, arrivals, burst, burst_at_s)
    trace = cpu.run_traced(disturbed, cpu.Job(job.policy, 0, job.seed), requests + burst)
    starts, _, residents, waiting = trace.series.T
    end_s = min(last_s, float(starts[-1])) * (1 - _ROUNDING)
    before = (starts >= settled_s) & (starts < burst_at_s)
    usual, in_system = 0.0, 0.0
    if before.any():
        usual = float(np.median(waiting[before]))
        in_system = float((residents + waiting)[before].mean())
    # Little's law, and room for a hold that the run can still tell.
    hold_s = min(max(2 * in_system * last_s / requests, _LEAST_S), (end_s - burst_at_s) / 2)
    criterion = Criterion(end_s - burst_at_s - hold_s, hold_s, usual + BACKLOG_REQUESTS)
    recovered_s = criterion.recovery_time_s(starts, waiting, burst_at_s)
    return recovered_s, end_s - burst_at_s, grows_after(trace.backlog, burst_at_s)


def with_burst(model: Model, arrivals: cpu.SamplePath, burst: int, at_s: float) -> Model:
    """The path of `arrivals` as a tape, with `burst` more requests of the same mix at one time."""
    shares = np.diff(model.shapes["share_cumulative"], prepend=0.0)
    extra = _apportioned(shares, burst)
    times = np.concatenate([arrivals.arrived_at_s, np.full(burst, at_s)])
    shapes = np.concatenate([arrivals.shape_index, extra])
    order = np.argsort(times, kind="stable")
    rows = np.zeros(len(times), TAPE_ROW)
    rows["arrived_at_s"], rows["shape"] = times[order], shapes[order]
    return model._replace(tape=rows)


def _apportioned(shares: Sequence[float] | NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Shape of each of `count` requests, in the given shares as evenly as whole numbers can."""
    edges = np.cumsum(shares)
    middles = (np.arange(count) + 0.5) / count * edges[-1]
    return np.asarray(np.searchsorted(edges, middles), dtype=np.int64)
