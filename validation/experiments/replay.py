"""A threshold table beside greedy admission: does it hold, and what does it cost?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluid.errors import InputError
from fluid.result import Block, Result, Table, number, percent, with_half_width
from fluid.traces.tape import Tape
from thresholds.fields import Validated
from thresholds.table import ThresholdTable
from validation.experiments.conclusion import conclusion_of_results
from validation.experiments.evaluate import policy_validation
from validation.experiments.following import policy_of
from validation.experiments.paths import WatchedRun
from validation.experiments.simulate import PolicyResult, Spread, frame_of, samples
from validation.experiments.slo.levels import levels_table
from validation.experiments.watch import watch_median
from validation.policies import PolicyLike, configured
from validation.simulator.arrivals import Arrivals, as_arrivals
from validation.simulator.model import model_of
from validation.simulator.runs import Runs
from validation.simulator.traffic.traffic import Traffic

if TYPE_CHECKING:
    from fluid.plots.style import Panels

BASELINES = ("greedy:watermark=0.01", "greedy:watermark=0.05")
"""What a table is compared with unless told otherwise: work-conserving admission."""

TAPE = "tape"
"""Arrivals of a table validated on a recording, which the table does not hold."""

_SPARE = ("TPOT s", "KV mean", "TTFT s", "collapsed", "evictions /req", "p99 s", "carried")


@dataclass(frozen=True, repr=False)
class Replay(Result):
    """Results of one replay, the table's own policy first.

    Attributes:
        arrivals: How requests came, as `thresholds.fields.Validated` has it.
        watched: A median replication under each policy, for the picture.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> server = fw.Server.named("paper-long-decode")
    >>> found = fw.replay(fw.solve(load, server), ["greedy"], runs=fw.Runs(6, 1_500))
    >>> found.conclusion
    'The table HOLDS, and makes no measurable difference to the best policy beside it.'
    >>> found.frame()["label"]
    ['this table (paced)', 'greedy']
    """

    table: ThresholdTable
    results: tuple[PolicyResult, ...]
    seed: int
    arrivals: str
    watched: WatchedRun

    @property
    def labels(self) -> tuple[str, ...]:
        """What each policy is called, in the order of `results`."""
        others = (one.label for one in self.results[1:])
        return (f"this table ({self.table.policy})", *others)

    @property
    def conclusion(self) -> str:
        """What the figures say in one sentence."""
        return conclusion_of_results(self.results)

    @property
    def validated_table(self) -> ThresholdTable:
        """The table with this replay as its validation.

        Raises:
            InputError: The runs had no verdict, or not all requests fit.
        """
        own, *others = self.results
        if own.traffic:
            raise InputError("traffic", own.traffic, "none: a table is validated at a rate")
        rows = [policy_validation(own), *(policy_validation(one, own) for one in others)]
        validated = Validated(
            replications=own.replications,
            requests=own.requests,
            seed=self.seed,
            policies=tuple(rows),
            arrivals=self.arrivals,
        )
        return self.table.model_copy(update={"validated": validated})

    def blocks(self) -> Iterator[Block]:
        first = self.results[0]
        title = (
            f"{self.table.workload.name} on {self.table.server.name} at "
            f"{number(first.rate_per_s)} /s: {first.replications} × {first.requests:,} requests"
        )
        if first.traffic:
            title = (
                f"{self.table.workload.name} on {self.table.server.name}, {first.traffic}: "
                f"{first.replications} × {first.requests:,} requests"
            )
        columns = ("policy", "verdict", "carried", "collapsed", "latency s", "p99 s", "TTFT s")
        rows = (self._row(*one) for one in zip(self.labels, self.results, strict=True))
        yield Table(
            title, (*columns, "TPOT s", "evictions /req", "KV mean"), tuple(rows), spare=_SPARE
        )
        if any(one.levels for one in self.results):
            named = zip(self.labels, self.results, strict=True)
            yield levels_table([(label, one.levels) for label, one in named])
        for label, one in zip(self.labels, self.results, strict=True):
            yield from one.caveats(label)
        yield self.conclusion

    def _row(self, label: str, one: PolicyResult) -> tuple[str, ...]:
        return (
            label,
            one.verdict,
            one.carried,
            percent(one.collapsed_share, 0),
            _mean(one.latency_s),
            number(one.latency_s.p99) if one.latency_s else "–",
            _mean(one.ttft_s),
            _mean(one.tpot_s),
            number(one.evictions_per_request, 3),
            percent(one.kv_mean_tokens / self.table.memory.capacity_tokens),
        )

    def document(self) -> dict[str, Any]:
        return {
            "table": self.table.policy,
            "workload": self.table.workload.name,
            "server": self.table.server.name,
            "seed": self.seed,
            "policies": [one.as_dict() for one in self.results],
        }

    def frame(self) -> dict[str, list[Any]]:
        """Figures by name, one entry per policy."""
        return frame_of(self.results) | {"label": list(self.labels)}

    def plot(self, ax: Panels | None = None) -> Panels:
        """The watched replication over time: waiting requests, KV in use, completions.

        Args:
            ax: Three axes, one above the other; those of a new figure where None.
        """
        from validation.experiments.pictures import draw_run

        first = self.results[0]
        how = first.traffic or f"at {first.rate_per_s:.4g} requests/s"
        title = (
            f"{self.table.workload.name} on {self.table.server.name} {how}, "
            f"a median run of {first.replications}"
        )
        labels = [
            f"{label}: {one.verdict}" for label, one in zip(self.labels, self.results, strict=True)
        ]
        return draw_run(self.watched, labels, title, ax)


def replay(
    table: ThresholdTable,
    policies: PolicyLike | Iterable[PolicyLike] | None = None,
    *,
    tape: Tape | None = None,
    arrivals: Arrivals | str | None = None,
    traffic: Traffic | None = None,
    rate_per_s: float | None = None,
    runs: Runs = Runs(20, 10_000),
    on_done: Callable[[], None] | None = None,
) -> Replay:
    """Simulate the table's policy and others on the same arrivals.

    Args:
        policies: What stands beside the table, as `policy` makes it or as text that `parse_policy`
            reads; greedy admission where None.
        tape: Recorded arrivals in place of those of the table's own workload; a recording runs
            once, at its own length.
        arrivals: How that workload arrives; Poisson where None.
        traffic: What clients do; they come and wait where None.
        rate_per_s: Of all arrivals together; that of the workload or the recording where None.
        on_done: Called after each replication.

    Raises:
        InputError: An unknown policy, a tape together with `arrivals`, or a literal WAIT table on
            a tape, whose requests belong to no class of the table.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> table = fw.solve(load, fw.Server.named("paper-long-decode"))
    >>> found = fw.replay(table, ["greedy:cap=2"], runs=fw.Runs(6, 1_500))
    >>> [one.verdict for one in found.results]
    ['stable', 'unstable']
    """
    own = policy_of(table)
    if tape is not None and own.policy.per_class and len(table.thresholds) > 1:
        raise InputError("tape", "requests without classes", "a table of policy paced")
    model = model_of(tape or table.workload, table.server, arrivals, traffic)
    beside = configured(BASELINES if policies is None else policies, least=0)
    done = samples(model, [own, *beside], runs, rate_per_s, on_done=on_done)
    return Replay(
        table,
        tuple(one.result().with_levels_of(tape or table.workload) for one in done),
        runs.seed,
        TAPE if tape else as_arrivals(arrivals).label,
        watch_median(model, done, runs.seed),
    )


def _mean(spread: Spread | None) -> str:
    return "–" if spread is None else with_half_width(spread.mean, spread.half_width)
