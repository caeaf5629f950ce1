"""A small result of every kind that `validation` answers with, for the tests of all results."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from fluid.result import Result
from fluid.server import load_server
from fluid.traces.tape import Tape
from fluid.workload import RequestClass, Slo, Workload
from tests.support.live_pages import Engine
from thresholds.solvers.paced.solver import Paced
from thresholds.table import ThresholdTable
from validation.experiments.compare import Comparison, compare
from validation.experiments.largest_rate import LargestRate, largest_stable_rate
from validation.experiments.planning.plan import plan
from validation.experiments.planning.result import Plan
from validation.experiments.recovery import Recovery, recovery
from validation.experiments.region import Region, region
from validation.experiments.replay import Replay, replay
from validation.experiments.slo.overload import OverloadCurve, overload_curve
from validation.experiments.slo.rate import SloRate, slo_rate
from validation.experiments.slo.servers import SloServers, slo_servers
from validation.experiments.sweep import Sweep, sweep
from validation.live.step import Step
from validation.live.watcher import Watcher
from validation.report.content import Report, make_report
from validation.simulator.runs import Runs

SERVER = load_server("paper-long-decode")
CHAT = RequestClass(name="chat", rate_per_s=2.0, prefill_tokens=512, decode_tokens=100)
CODE = RequestClass(name="code", rate_per_s=1.0, prefill_tokens=512, decode_tokens=300)
LOAD = Workload(name="chat", classes=(CHAT,))
PAIR = Workload(name="pair", classes=(CHAT, CODE))
POLICIES = ["greedy", "greedy:cap=2"]
RUNS = Runs(replications=3, requests=300)


@cache
def table() -> ThresholdTable:
    return Paced().solve(PAIR, SERVER)


def tape() -> Tape:
    return Tape(np.arange(200) / 2.0, np.full(200, 512), np.full(200, 100))


def a_replay() -> Replay:
    return replay(table(), POLICIES, runs=RUNS)


def a_replay_of_a_tape() -> Replay:
    return replay(table(), POLICIES, tape=tape())


def an_unstable_replay() -> Replay:
    return replay(table(), POLICIES, rate_per_s=60.0, runs=Runs(3, 1000))


def a_comparison() -> Comparison:
    return compare(
        LOAD, SERVER, POLICIES, rates=[1.0, 2.0], runs=RUNS, find_capacity=True, burst=10
    )


def a_comparison_on_a_tape() -> Comparison:
    return compare(tape(), SERVER, POLICIES)


def a_largest_rate() -> LargestRate:
    return largest_stable_rate(LOAD, SERVER, "greedy:cap=2", runs=RUNS, tolerance=0.2)


def a_recovery() -> Recovery:
    return recovery(LOAD, SERVER, "greedy", 10, runs=RUNS)


def promised(**limits: float) -> Workload:
    """Two classes, one of which has levels of its own."""
    own = CHAT.model_copy(update={"slo": Slo(ttft_s=0.5, tpot_s=0.1, quantile=0.9)})
    shared = Slo.model_validate(limits | {"quantile": 0.9})
    return Workload(name="pair", classes=(own, CODE), slo=shared)


def a_slo_rate() -> SloRate:
    return slo_rate(promised(latency_s=30.0), SERVER, "greedy:cap=8", runs=RUNS, tolerance=0.2)


def an_open_slo_rate() -> SloRate:
    load = promised(latency_s=30.0)
    return slo_rate(load, SERVER, "greedy:cap=8", runs=RUNS, budget_s=1e-9)


def some_slo_servers() -> SloServers:
    return slo_servers(promised(latency_s=30.0).at_rate(9.0), SERVER, "greedy:cap=8", runs=RUNS)


def an_overload_curve() -> OverloadCurve:
    load = Workload(name="pair", classes=(CHAT, CODE), slo=Slo(ttft_s=2.0, quantile=0.9))
    runs = Runs(2, 400)
    return overload_curve(load, SERVER, "greedy:cap=8", multiples=[0.5, 2.0], runs=runs)


def a_comparison_with_levels() -> Comparison:
    return compare(promised(ttft_s=2.0), SERVER, "greedy:cap=8", runs=RUNS)


def a_sweep() -> Sweep:
    return sweep(LOAD, SERVER, POLICIES, rates=[1.0, 2.0], seeds=2, runs=RUNS)


def a_plan() -> Plan:
    return plan(LOAD, load_server("engine-long-decode"), budget_s=0.01, runs=Runs(2, 400))


def a_region() -> Region:
    return region(PAIR, SERVER)


def a_simulated_region() -> Region:
    return region(PAIR, SERVER, POLICIES, 2, Runs(2, 200))


def a_report() -> Report:
    return make_report(table(), runs=RUNS)


def a_look() -> Step:
    with tempfile.TemporaryDirectory() as folder:
        watcher = Watcher(SERVER, Path(folder) / "table.json", dry_run=True)
        engine = Engine()
        for k in range(3):
            engine.finish(30)
            found = watcher.step(engine.scrape(15.0 * k))
    return found


VALIDATION_RESULTS: dict[str, Callable[[], Result]] = {
    one.__name__.replace("_", " "): one
    for one in (
        a_replay,
        a_replay_of_a_tape,
        an_unstable_replay,
        a_comparison,
        a_comparison_on_a_tape,
        a_largest_rate,
        a_recovery,
        a_slo_rate,
        an_open_slo_rate,
        some_slo_servers,
        an_overload_curve,
        a_comparison_with_levels,
        a_sweep,
        a_plan,
        a_region,
        a_simulated_region,
        a_report,
        a_look,
    )
}
"""By name."""
