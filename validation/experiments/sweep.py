"""Policies × rates × seeds on the simulator: interruptible, resumable, a row per configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from numpy.typing import ArrayLike

from fluid.errors import InputError
from fluid.result import Block, Result, Table, number
from fluid.server import Server
from fluid.steady.fluid_sweep import FluidSweep, fluid_sweep
from fluid.traces.tape import Tape
from fluid.workload import Workload
from validation.experiments.rows import LOCAL, Runner, grid, run_rows
from validation.experiments.simulate import PolicyResult, frame_of
from validation.experiments.store import Store, opened
from validation.policies import PolicyLike, configured
from validation.simulator.arrivals import Arrivals
from validation.simulator.model import model_of
from validation.simulator.runs import Runs
from validation.simulator.traffic.traffic import Traffic

_MOST_SHOWN = 30


@dataclass(frozen=True)
class PolicySummary:
    """The rows of a policy, counted by verdict.

    Attributes:
        stable_up_to_per_s: The highest rate up to which every row is stable; None where the lowest
            has one that is not.
    """

    policy: str
    rows: int
    stable: int
    undecided: int
    unstable: int
    stable_up_to_per_s: float | None


@dataclass(frozen=True, repr=False)
class Sweep(Result):
    """Every policy at every rate under every seed.

    Attributes:
        results: A row each: for every rate every policy under every seed, in this order.
        seeds: Of each row.
        folder: Where the rows are kept; None where they are not.
        new_rows: How many of them were not there before.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> server = fw.Server.named("paper-long-decode")
    >>> found = fw.sweep(load, server, "greedy", rates=[1, 2], seeds=2, runs=fw.Runs(2, 300))
    >>> found.summaries[0].rows
    4
    """

    results: tuple[PolicyResult, ...]
    seeds: tuple[int, ...]
    folder: str | None
    new_rows: int

    @cached_property
    def summaries(self) -> tuple[PolicySummary, ...]:
        """One per policy, in the order in which they first appear."""
        of_policy: dict[str, list[PolicyResult]] = {}
        for one in self.results:
            of_policy.setdefault(one.label, []).append(one)
        return tuple(_summary(label, rows) for label, rows in of_policy.items())

    def blocks(self) -> Iterator[Block]:
        columns = ("policy", "rows", "stable", "undecided", "unstable", "stable up to /s")
        rows = []
        for one in self.summaries[:_MOST_SHOWN]:
            counts = (one.rows, one.stable, one.undecided, one.unstable)
            rows.append((one.policy, *map(str, counts), number(one.stable_up_to_per_s)))
        yield Table("Rows by policy", columns, tuple(rows), spare=("rows",))
        policies = len(self.summaries)
        if policies > _MOST_SHOWN:
            yield f"The first {_MOST_SHOWN} of {policies} policies; all are in the rows."
        kept = "" if self.folder is None else f", {self.new_rows:,} of them new, in {self.folder}"
        yield f"{len(self.results):,} rows{kept}."

    def document(self) -> dict[str, Any]:
        return {
            "folder": self.folder,
            "rows": len(self.results),
            "new_rows": self.new_rows,
            "policies": [asdict(one) for one in self.summaries],
        }

    def frame(self) -> dict[str, list[Any]]:
        """Figures by name, one entry per row."""
        return frame_of(self.results) | {"seed": list(self.seeds)}


@overload
def sweep(  # type: ignore[overload-overlap]  # `policies` is no parameter of a load
    load: Workload | Tape,
    server: Server,
    policies: PolicyLike | Iterable[PolicyLike],
    *,
    rates: Iterable[float] | None = None,
    seeds: int = 1,
    arrivals: Arrivals | str | None = None,
    traffic: Traffic | None = None,
    runs: Runs = Runs(20, 20_000),
    store: Store | str | Path | None = None,
    runner: Runner = LOCAL,
    on_done: Callable[[], None] | None = None,
) -> Sweep: ...


@overload
def sweep(
    load: Workload,
    server: Server,
    *,
    of: str | Callable[[Workload, Server], Any] = "equilibrium",
    scheduler: str | None = None,
    on_done: Callable[[], None] | None = None,
    **values: ArrayLike,
) -> FluidSweep: ...


def sweep(load: Any, server: Server, policies: Any = None, **asked: Any) -> Sweep | FluidSweep:
    """With policies: simulate each at every rate under every seed. Without: what the fluid says.

    With them it is the command ``fluidwait sweep``, and takes ``rates``, ``seeds``, ``arrivals``,
    ``traffic``, ``runs``, ``store``, ``runner`` and ``on_done``, as `simulated_sweep`.

    Without policies nothing is simulated: an analytic answer is given at every combination of
    values of ``rate``, ``kv_tokens``, ``overhead_s``, ``per_kv_token_s``, ``output_factor`` and
    ``prompt_factor``, with ``of``, ``scheduler`` and ``on_done`` as for
    `fluid.steady.fluid_sweep.fluid_sweep`.

    Args:
        load: A workload; with policies also a recording, which runs once and under one seed.
        policies: As `policy` makes them, or as text that `parse_policy` reads.
        asked: As above.

    Raises:
        InputError, ClusterError: As these two.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> server = fw.Server.named("paper-long-decode")
    >>> found = fw.sweep(load, server, ["greedy"], rates=[1, 2], runs=fw.Runs(2, 300))
    >>> found.frame()["rate_per_s"]
    [1.0, 2.0]
    >>> found = fw.sweep(load, server, of="stability", rate=[20, 40], kv_tokens=[9_000, 90_000])
    >>> found.frame()["stable"]
    [False, True, False, False]
    """
    if policies is not None:
        return simulated_sweep(load, server, policies, **asked)
    if isinstance(load, Tape):
        raise InputError("load", "a recording", "a workload, or policies to simulate on it")
    return fluid_sweep(load, server, **asked)


def simulated_sweep(
    load: Workload | Tape,
    server: Server,
    policies: PolicyLike | Iterable[PolicyLike],
    rates: Iterable[float] | None = None,
    seeds: int = 1,
    arrivals: Arrivals | str | None = None,
    traffic: Traffic | None = None,
    runs: Runs = Runs(20, 20_000),
    store: Store | str | Path | None = None,
    runner: Runner = LOCAL,
    on_done: Callable[[], None] | None = None,
) -> Sweep:
    """Run every policy at every rate under every seed; `sweep` with policies.

    Args:
        load: A workload, or a recording, which runs once and under one seed.
        policies: As `policy` makes them, or as text that `parse_policy` reads.
        rates: Total rates per second; that of the load where None.
        seeds: How many, from that of `runs` on.
        arrivals: How the workload arrives; Poisson where None.
        traffic: What clients do; they come and wait where None.
        store: Folder that keeps finished rows; those that it holds are not run again.
        runner: Where configurations run; the results do not depend on it.
        on_done: Called after each row.

    Raises:
        InputError: No policies or rates, too many rows, or a policy that cannot run.
        ClusterError: The runner lost its cluster; the rows so far are in the store.
    """
    chosen = configured(policies)
    model = model_of(load, server, arrivals, traffic)
    offered_per_s = model.offered(rates)
    if seeds < 1:
        raise InputError("seeds", seeds, "at least 1")
    if seeds > 1 and isinstance(load, Tape):
        raise InputError("seeds", seeds, "1 for a recording, which has no random numbers")
    configurations = grid(chosen, offered_per_s, runs, seeds)
    with opened(store) as rows:
        kept = 0 if rows is None else len(rows)
        results = run_rows(model, configurations, rows, runner=runner, on_done=on_done)
        new = 0 if rows is None else len(rows) - kept
    given = tuple(one.runs.seed for one in configurations)
    return Sweep(tuple(results), given, None if rows is None else str(rows.path), new)


def _summary(label: str, rows: Sequence[PolicyResult]) -> PolicySummary:
    verdicts = [one.verdict for one in rows]
    rates = [(one.rate_per_s, one.verdict) for one in rows if one.rate_per_s is not None]
    lowest_failing = min((rate for rate, verdict in rates if verdict != "stable"), default=math.inf)
    holding = [rate for rate, _ in rates if rate < lowest_failing]
    return PolicySummary(
        label,
        len(rows),
        verdicts.count("stable"),
        verdicts.count("undecided"),
        verdicts.count("unstable"),
        max(holding, default=None),
    )
