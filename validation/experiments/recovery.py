"""Recovery from a burst: how long until the server is back where it was, if ever (THEORY 6.4).

B requests arrive at one instant on top of a path of the model's own arrivals. The server has
recovered by the criterion of `metastable`: from some time on, for two mean times in the system, no
more wait than the median before the burst plus `BACKLOG_REQUESTS`. It never will where the backlog
keeps growing after the burst, by the verdict of `validation.simulator.backlog`: greedy admission
can collapse for good. Otherwise a path that ends first shows only that it takes longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.result import Block, Result, Table, number, percent
from fluid.server import Server
from fluid.traces.tape import Tape
from fluid.transient.metastable import Criterion
from fluid.workload import Workload
from validation.policies import PolicyLike, configured
from validation.simulator import cpu
from validation.simulator.arrivals import Arrivals
from validation.simulator.backlog import grows_after
from validation.simulator.metrics import interval
from validation.simulator.model import TAPE_ROW, Model, poisson_model
from validation.simulator.runs import MOST_REQUESTS, Runs, require_count

BURST_AT = 0.2
"""Share of the arrivals before the burst."""

BACKLOG_REQUESTS = 10.0
"""Waiting beyond the usual that still counts as recovered."""

SETTLED_AT = 0.05
"""Share of the arrivals after which the server counts as warm."""

_LEAST_S = 1e-3
_ROUNDING = 1e-9


@dataclass(frozen=True, repr=False)
class Recovery(Result):
    """Recovery of one policy from one burst at one rate.

    Attributes:
        recovered_share: Share of the replications that came back before the arrivals ended.
        collapsed_share: Share that did not, and whose backlog grows after the burst.
        recovery_s, recovery_half_width_s: Mean time over those, with its 95 % half width; None
            where too few came back.
        horizon_s: Mean time from the burst to the end of the arrivals.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> server = fw.Server.named("paper-long-decode")
    >>> fw.recovery(load, server, "greedy:cap=2", 50, runs=fw.Runs(2, 300)).time
    'never'
    """

    policy: str
    rate_per_s: float
    burst_requests: int
    replications: int
    recovered_share: float
    collapsed_share: float
    recovery_s: float | None
    recovery_half_width_s: float | None
    horizon_s: float

    def blocks(self) -> Iterable[Block]:
        return [recoveries_table([self])]

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def time(self) -> str:
        """The mean time with its interval, in words where nobody came back."""
        if self.recovery_s is None:
            never = self.collapsed_share > 0.5
            return "never" if never else f"not within {number(self.horizon_s)} s"
        width_s = self.recovery_half_width_s
        return number(self.recovery_s) + (f" ± {number(width_s, 2)}" if width_s else "")


def recoveries_table(recoveries: Sequence[Recovery]) -> Table:
    """One row each; all from the same burst."""
    title = f"Recovery from {recoveries[0].burst_requests} requests at one instant"
    rows = tuple(
        (
            one.policy,
            number(one.rate_per_s),
            percent(one.recovered_share, 0),
            one.time,
            number(one.horizon_s),
        )
        for one in recoveries
    )
    columns = ("policy", "rate /s", "recovered", "after s", "watched for s")
    return Table(title, columns, rows, spare=("watched for s",))


def recovery(
    load: Workload | Tape,
    server: Server,
    policy: PolicyLike,
    burst_requests: int,
    *,
    rate_per_s: float | None = None,
    arrivals: Arrivals | str | None = None,
    runs: Runs = Runs(20, 20_000),
    on_done: Callable[[], None] | None = None,
) -> Recovery:
    """Simulate the burst in every replication, on the CPU.

    Args:
        load: A workload; a recording is refused, it has one path only.
        burst_requests: How many arrive at one instant.
        rate_per_s: Of all other arrivals together; that of the workload where None.
        arrivals: How the workload arrives; Poisson where None.
        on_done: Called after each replication.

    Raises:
        InputError: No burst, a recording, or a policy that cannot run.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> server = fw.Server.named("paper-long-decode")
    >>> fw.recovery(load, server, "greedy", 20, runs=fw.Runs(2, 300)).recovered_share
    1.0
    """
    workload = require_burst(load, burst_requests)
    model = poisson_model(workload, server, arrivals)
    (chosen,) = configured(policy)
    scale = model.rate_scale(rate_per_s)
    times, horizons, collapsed = [], [], 0
    for replication in range(runs.replications):
        job = cpu.Job(chosen, replication, runs.seed, scale)
        recovered_s, horizon_s, grows = _one_path(model, job, burst_requests, runs.requests)
        collapsed += recovered_s is None and grows
        times.append(recovered_s)
        horizons.append(horizon_s)
        if on_done:
            on_done()
    back = [one for one in times if one is not None]
    mean = interval(back) if back else None
    return Recovery(
        policy=chosen.label,
        rate_per_s=model.rate_per_s if rate_per_s is None else rate_per_s,
        burst_requests=burst_requests,
        replications=runs.replications,
        recovered_share=len(back) / runs.replications,
        collapsed_share=collapsed / runs.replications,
        recovery_s=mean.mean if mean else None,
        recovery_half_width_s=mean.half_width if mean and len(back) > 1 else None,
        horizon_s=float(np.mean(horizons)),
    )


def require_burst(load: Workload | Tape, burst_requests: int) -> Workload:
    """The workload that a burst can come on top of.

    Raises:
        InputError: No burst, a recording, or conversations.
    """
    require_count("burst", burst_requests, 1, MOST_REQUESTS)
    if isinstance(load, Tape):
        raise InputError("burst", burst_requests, "a workload's own arrivals, no tape")
    if any(one.conversation is not None for one in load.classes):
        allowed = "requests that arrive on their own, no turns of conversations"
        raise InputError("burst", burst_requests, allowed)
    return load


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
    for name in ("first_run", "runs"):
        rows[name] = model.shapes[name][rows["shape"]]
    return model._replace(tape=rows)


def _apportioned(shares: Sequence[float] | NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Shape of each of `count` requests, in the given shares as evenly as whole numbers can."""
    edges = np.cumsum(shares)
    middles = (np.arange(count) + 0.5) / count * edges[-1]
    return np.asarray(np.searchsorted(edges, middles), dtype=np.int64)
