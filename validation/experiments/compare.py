"""Policies side by side by rate: verdicts, latencies, largest stable rates, recoveries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fluid.errors import InputError
from fluid.result import Block, Result, Table, number, percent, with_half_width
from fluid.server import Server
from fluid.traces.tape import Tape
from fluid.workload import Workload
from validation.experiments.largest_rate import (
    LargestRate,
    fluid_limit_per_s,
    largest_stable_rates,
)
from validation.experiments.recovery import Recovery, recoveries_table, recovery, require_burst
from validation.experiments.rows import LOCAL, Runner, grid, run_rows
from validation.experiments.simulate import PolicyResult, frame_of
from validation.experiments.slo.levels import levels_table
from validation.experiments.store import Store, opened
from validation.policies import PolicyLike, configured
from validation.simulator.arrivals import Arrivals
from validation.simulator.model import model_of
from validation.simulator.runs import Runs
from validation.simulator.traffic.traffic import Traffic

if TYPE_CHECKING:
    from fluid.plots.style import Panels
    from validation.experiments.pictures import RateLine

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Watches a stage of work: (its name, its steps) → what is called after each of them."""

_SPARE = ("KV mean", "recomputed", "collapsed", "evictions /req", "p99 s", "carried")


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Policies side by side.

    Attributes:
        results: For every rate every policy, in this order.
        largest_rates: One per policy, where they were looked for.
        recoveries: For every rate every policy, where a burst was asked for.
        limit_per_s: The largest rate in the fluid model; None for a recording, or where some
            requests never fit into memory.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> server = fw.Server.named("paper-long-decode")
    >>> found = fw.compare(load, server, "greedy", rates=[1, 2], runs=fw.Runs(2, 300))
    >>> [one.rate_per_s for one in found.results]
    [1.0, 2.0]
    """

    results: tuple[PolicyResult, ...]
    largest_rates: tuple[LargestRate, ...]
    recoveries: tuple[Recovery, ...]
    limit_per_s: float | None

    def blocks(self) -> Iterator[Block]:
        columns = ("policy", "rate /s", "verdict", "carried", "collapsed", "latency s", "p99 s")
        rows = tuple(_row(one) for one in self.results)
        more = ("evictions /req", "recomputed", "KV mean")
        table = Table("Policies by rate", (*columns, *more), rows, spare=_SPARE)
        yield table if self._at_rates else self._completions
        if any(one.levels for one in self.results):
            yield levels_table([(_place(one), one.levels) for one in self.results])
        for result in self.results:
            yield from result.caveats(_place(result))
        if self.limit_per_s is not None:
            yield f"Fluid limit: {number(self.limit_per_s)} /s."
        if self.results and self.results[0].traffic:
            yield f"Traffic: {self.results[0].traffic}. {self.results[0].traffic_sentence}"
        for one in self.largest_rates:
            yield one.sentence(self.limit_per_s)
        if self.recoveries:
            yield recoveries_table(self.recoveries)

    @property
    def _at_rates(self) -> bool:
        return all(one.rate_per_s is not None for one in self.results)

    @property
    def _completions(self) -> Table:
        """The table where requests come at no rate, so that what is completed is the answer."""
        columns = ("policy", "completed /s", "latency s", "p99 s", "TTFT s", "TPOT s")
        more = ("token gap p99 s", "evictions /req", "recomputed", "KV mean")
        rows = []
        for one in self.results:
            latency, ttft, tpot = one.latency_s, one.ttft_s, one.tpot_s
            rows.append(
                (
                    one.label,
                    number(one.completed_per_s),
                    with_half_width(latency.mean, latency.half_width) if latency else "–",
                    number(latency.p99) if latency else "–",
                    with_half_width(ttft.mean, ttft.half_width) if ttft else "–",
                    with_half_width(tpot.mean, tpot.half_width) if tpot else "–",
                    number(one.token_gap_s.p99) if one.token_gap_s else "–",
                    number(one.evictions_per_request, 3),
                    percent(one.recomputed_token_share),
                    number(one.kv_mean_tokens),
                )
            )
        return Table("Policies", (*columns, *more), tuple(rows), spare=_SPARE)

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"policies": [one.as_dict() for one in self.results]}
        if self.largest_rates:
            document["capacities"] = [one.document() for one in self.largest_rates]
            document["largest_stable_rate_per_s"] = {
                one.policy: one.largest_stable_rate_per_s for one in self.largest_rates
            }
        if self.recoveries:
            document["recoveries"] = [asdict(one) for one in self.recoveries]
        return document

    def frame(self) -> dict[str, list[Any]]:
        """Figures by name, one entry per policy and rate."""
        return frame_of(self.results)

    def plot(self, ax: Panels | None = None) -> Panels:
        """Mean latency, and completed rate, against the offered rate.

        Latencies of an unstable policy depend on the length of the run, and are left out.

        Args:
            ax: Two axes, side by side; those of a new figure where None.
        """
        from validation.experiments.pictures import draw_by_rate

        labels = dict.fromkeys(one.label for one in self.results)
        return draw_by_rate({label: self._line(label) for label in labels}, self.limit_per_s, ax)

    def _line(self, label: str) -> RateLine:
        from validation.experiments.pictures import RateLine

        rows = sorted((one for one in self.results if one.label == label), key=_rate)
        spreads = [None if one.verdict == "unstable" else one.latency_s for one in rows]
        return RateLine(
            np.array([_rate(one) for one in rows]),
            np.array([one.completed_per_s for one in rows]),
            np.array([np.nan if one is None else one.mean for one in spreads]),
            np.array([(one and one.half_width) or 0.0 for one in spreads]),
        )


def compare(
    load: Workload | Tape,
    server: Server,
    policies: PolicyLike | Iterable[PolicyLike],
    *,
    rates: Iterable[float] | None = None,
    arrivals: Arrivals | str | None = None,
    traffic: Traffic | None = None,
    runs: Runs = Runs(20, 20_000),
    find_capacity: bool = False,
    burst: int | None = None,
    store: Store | str | Path | None = None,
    runner: Runner = LOCAL,
    progress: Progress | None = None,
) -> Comparison:
    """Simulate policies side by side at every rate.

    Args:
        load: A workload, or a recording, which runs once, at its own length.
        policies: As `policy` makes them, or as text that `parse_policy` reads.
        rates: Total rates per second; that of the load where None.
        arrivals: How the workload arrives; Poisson where None.
        traffic: What clients do; they come and wait where None.
        find_capacity: Whether to look for the largest stable rate of each policy.
        burst: Also measure the recovery from so many requests at once.
        store: Folder that keeps finished rows; those that it holds are not run again.
        runner: Where configurations run; the results do not depend on it.
        progress: Watches the stages of the work.

    Raises:
        InputError: No policies or rates, a policy that cannot run, a burst beside a recording, or
            a largest rate or a burst beside traffic, whose backlog cannot grow.
        ClusterError: The runner lost its cluster; the rows so far are in the store.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> server = fw.Server.named("paper-long-decode")
    >>> found = fw.compare(load, server, ["greedy", "greedy:cap=2"], runs=fw.Runs(6, 1_500))
    >>> found.frame()["verdict"]
    ['stable', 'unstable']
    """
    chosen = configured(policies)
    if burst is not None:
        require_burst(load, burst)
    if traffic is not None:
        allowed = "nothing beside clients, jobs, bounds and patience: the backlog has to grow"
        for field, given in (("find_capacity", find_capacity), ("burst", burst)):
            if given:
                raise InputError(field, given, allowed)
    model = model_of(load, server, arrivals, traffic)
    offered_per_s = model.offered(rates)
    watched: Progress = progress or (lambda title, total: nullcontext(lambda: None))
    rows = grid(chosen, offered_per_s, runs)
    largest: list[LargestRate] = []
    with opened(store) as kept:
        with watched("compare", len(rows)) as advance:
            results = run_rows(model, rows, kept, runner=runner, on_done=advance)
        if find_capacity:
            with watched("capacity", len(chosen)) as advance:
                largest = largest_stable_rates(
                    load,
                    server,
                    chosen,
                    arrivals=arrivals,
                    runs=runs,
                    store=kept,
                    runner=runner,
                    on_done=advance,
                )
    recoveries: list[Recovery] = []
    if burst is not None:
        with watched("recovery", len(rows) * runs.replications) as advance:
            recoveries = [
                recovery(
                    load,
                    server,
                    one.policy,
                    burst,
                    rate_per_s=one.rate_per_s,
                    arrivals=arrivals,
                    runs=runs,
                    on_done=advance,
                )
                for one in rows
            ]
    too_long = bool(model.shapes["too_long"].any())
    limit_per_s = None if too_long else fluid_limit_per_s(load, server)
    named = tuple(one.with_levels_of(load) for one in results)
    return Comparison(named, tuple(largest), tuple(recoveries), limit_per_s)


def _row(one: PolicyResult) -> tuple[str, ...]:
    latency = one.latency_s
    return (
        one.label,
        number(one.rate_per_s),
        one.verdict,
        one.carried,
        percent(one.collapsed_share, 0),
        with_half_width(latency.mean, latency.half_width) if latency else "–",
        number(latency.p99) if latency else "–",
        number(one.evictions_per_request, 3),
        percent(one.recomputed_token_share),
        number(one.kv_mean_tokens),
    )


def _place(one: PolicyResult) -> str:
    rate = "" if one.rate_per_s is None else f" at {number(one.rate_per_s)} /s"
    return f"{one.label}{rate}"


def _rate(one: PolicyResult) -> float:
    if one.rate_per_s is None:
        raise InputError("plot", "clients or a job", "requests that come at a rate")
    return one.rate_per_s
