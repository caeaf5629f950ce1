"""What every experiment of the reproduction is made of: runs, tables, claims with a verdict.

Rates are nominal, as the paper gives them; arrivals are those of its simulator unless told
otherwise, with gaps clipped at 3/λ (THEORY 6.3). Latencies are means over the requests that arrived
between 20 % and 80 % of the arrivals, also where the queue grows: there they depend on the length
of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fluid.server import Server
from fluid.workload import Workload
from validation.policies import ConfiguredPolicy, parse_policy
from validation.simulator.arrivals import parse_arrivals
from validation.simulator.cpu import Job
from validation.simulator.metrics import Interval, Replication, interval, verdict
from validation.simulator.model import poisson_model
from validation.simulator.recording import LATENCY
from validation.simulator.run import run

CLIPPED, EXACT = "poisson-clipped", "poisson"

MET, NOT_MET, OPEN = "met", "not met", "undecided"

MARKS = {"stable": "", "unstable": "¹", "undecided": "²"}
"""Behind latencies in tables, by verdict."""


@dataclass(frozen=True)
class Sizes:
    """How much is simulated.

    Attributes:
        replications: Of every configuration; `table_replications` of the 20-run table.
        requests: Per replication; `long_requests` where outputs are long.
    """

    replications: int
    table_replications: int
    requests: int
    long_requests: int
    seed: int = 0


FULL = Sizes(replications=10, table_replications=20, requests=10_000, long_requests=2_000)
QUICK = Sizes(replications=2, table_replications=3, requests=400, long_requests=60)


@dataclass(frozen=True)
class Run:
    """One policy at one nominal rate.

    Attributes:
        name: The policy as `parse_policy` reads it, or what the page calls it.
        requests: Per replication.
        verdict: "stable", "unstable" or "undecided", as in `compare`.
        latency_s: Mean latency of each replication.
        restarts: Evictions per request.
    """

    name: str
    rate_per_s: float
    requests: int
    verdict: str
    latency_s: tuple[float, ...]
    completed_share: float
    restarts: float

    @property
    def mean_s(self) -> float:
        """Mean latency over the replications."""
        return float(np.mean(self.latency_s))

    @property
    def sd_s(self) -> float:
        """Its standard deviation between replications."""
        return float(np.std(self.latency_s, ddof=1))


@dataclass(frozen=True)
class PageTable:
    """A table of the page; cells are text."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Claim:
    """Something the paper finds, and whether these runs find it too.

    Attributes:
        verdict: MET, NOT_MET where the opposite is significant, or OPEN.
        evidence: The measured figures behind it.
    """

    text: str
    verdict: str
    evidence: str


@dataclass(frozen=True)
class ExperimentResult:
    """What an experiment found.

    Attributes:
        facts: Figures that its explanation in `templates/` cites.
    """

    runs: tuple[Run, ...] = ()
    tables: tuple[PageTable, ...] = ()
    claims: tuple[Claim, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lab:
    """Where experiments are run.

    Attributes:
        on_done: Called after each replication.
    """

    sizes: Sizes
    threads: int | None = None
    on_done: Callable[[], None] | None = None

    def simulate(
        self,
        workload: Workload,
        server: Server,
        policies: Mapping[str, ConfiguredPolicy],
        rates_per_s: Iterable[float],
        *,
        arrivals: str = CLIPPED,
        replications: int | None = None,
        requests: int | None = None,
        seed: int | None = None,
    ) -> tuple[Run, ...]:
        """Every policy at every rate on the same arrivals; policies by the name they are shown as.

        Raises:
            InputError: A policy that cannot run this workload.
        """
        count = replications or self.sizes.replications
        first = self.sizes.seed if seed is None else seed
        model = poisson_model(workload, server, parse_arrivals(arrivals))
        cases = [(name, rate_per_s) for rate_per_s in rates_per_s for name in policies]
        jobs = [
            Job(policies[name], replication, first, rate_per_s / workload.rate_per_s)
            for name, rate_per_s in cases
            for replication in range(count)
        ]
        size = requests or self.sizes.requests
        done = run(model, jobs, size, threads=self.threads, on_done=self.on_done)
        return tuple(
            _summary(*case, size, done[k * count : (k + 1) * count]) for k, case in enumerate(cases)
        )


@dataclass(frozen=True)
class Experiment:
    """One part of the page.

    Attributes:
        name: Of its figure and of its explanation, `templates/NAME.md.jinja`.
        shows: What the paper shows with it, in a sentence.
        run: Simulates.
        draw: The figure.
    """

    name: str
    title: str
    shows: str
    run: Callable[[Lab], ExperimentResult]
    draw: Callable[[ExperimentResult], Figure]


def _summary(name: str, rate_per_s: float, requests: int, sample: Sequence[Replication]) -> Run:
    return Run(
        name=name,
        rate_per_s=rate_per_s,
        requests=requests,
        verdict=verdict(sample).word,
        latency_s=tuple(float(one.mean_s[-1, LATENCY]) for one in sample),
        completed_share=float(np.mean([one.completed_share for one in sample])),
        restarts=float(np.mean([one.evictions / one.arrived for one in sample])),
    )


def named(texts: Iterable[str]) -> dict[str, ConfiguredPolicy]:
    """Policies by the text that `parse_policy` reads."""
    return {text: parse_policy(text) for text in texts}


def find(runs: Sequence[Run], name: str, rate_per_s: float) -> Run:
    """The run of a policy at a rate."""
    return next(one for one in runs if one.name == name and one.rate_per_s == rate_per_s)


def best(runs: Sequence[Run], names: Iterable[str], rate_per_s: float) -> Run:
    """The one of least mean latency at a rate."""
    found = (find(runs, name, rate_per_s) for name in names)
    return min(found, key=lambda one: one.mean_s)


def difference(one: Run, other: Run) -> Interval:
    """Mean latency of `one` less that of `other`, 95 % interval; both saw the same arrivals."""
    return interval(np.array(one.latency_s) - np.array(other.latency_s))


def faster(text: str, fast: Run, slow: Run) -> Claim:
    """The claim that `fast` has the lower mean latency, judged by the paired difference."""
    found = difference(fast, slow)
    evidence = (
        f"{seconds(fast.mean_s)} (`{fast.name}`) against {seconds(slow.mean_s)} (`{slow.name}`), "
        f"difference {found.mean:+.2f} ± {found.half_width:.2f} s"
    )
    return Claim(text, judged(found), evidence)


def judged(below_zero: Interval) -> str:
    """MET where the whole interval lies below 0, NOT_MET where above, OPEN where it holds 0."""
    if below_zero.high < 0:
        return MET
    return NOT_MET if below_zero.low > 0 else OPEN


def at_least(text: str, large: float, small: float, tolerance: float, evidence: str) -> Claim:
    """The claim that `large` is the larger; OPEN where they differ by less than this share."""
    if large > small * (1 + tolerance):
        return Claim(text, MET, evidence)
    return Claim(text, NOT_MET if small > large * (1 + tolerance) else OPEN, evidence)


def seconds(value: float) -> str:
    """Three significant digits with the unit."""
    return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"


def cell(one: Run) -> str:
    """Mean ± standard deviation for a table, marked where it is not stable."""
    return f"{one.mean_s:.2f} ± {one.sd_s:.2f}{MARKS[one.verdict]}"
