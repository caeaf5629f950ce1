"""The case that thresholds are for: long outputs near the limit (THEORY 6.4)."""

from __future__ import annotations

from functools import cache

import pytest
from scipy import stats

from fluid.server import Server, load_server
from fluid.workload import RequestClass, Workload
from thresholds.solvers.paced.solver import Paced
from thresholds.table import ThresholdTable
from validation.experiments.following import policy_of
from validation.experiments.replay import replay
from validation.experiments.simulate import PolicyResult, simulate
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

LONG = RequestClass(name="long", rate_per_s=2.6, prefill_tokens=512, decode_tokens=1000)


@pytest.fixture(scope="module")
def server() -> Server:
    return load_server("paper-long-decode")


@pytest.fixture(scope="module")
def table(server: Server) -> ThresholdTable:
    return Paced().solve(Workload(name="long-decode", classes=(LONG,)), server)


def test_the_table_holds_where_greedy_collapses(table: ThresholdTable) -> None:
    own, greedy = replay(table, ["greedy:watermark=0.01"]).results
    assert own.verdict == "stable"
    assert own.completed_share >= 0.99
    assert own.latency_s is not None
    assert own.latency_s.mean <= 47.0
    assert own.evictions_per_request < 0.01
    assert greedy.verdict == "unstable"
    assert greedy.collapsed_share >= 0.8
    assert greedy.latency_s is not None
    assert greedy.latency_note.endswith("that completed; the system was still filling")
    assert own.latency_note == ""


def test_the_table_costs_nothing_at_half_the_rate(table: ThresholdTable) -> None:
    half_per_s = table.workload.rate_per_s / 2
    found = replay(table, ["greedy", "greedy:watermark=0.01"], rate_per_s=half_per_s).results
    latencies = [one.latency_s.mean for one in found if one.latency_s]
    assert len(latencies) == 3
    assert latencies[0] <= 1.01 * min(latencies[1:])


@cache
def at_rate(text: str, rate_per_s: float) -> PolicyResult:
    """Forty runs of 20,000 requests for the shares of THEORY 6.4."""
    workload = Workload(name="long", classes=(LONG,))
    model = poisson_model(workload, load_server("paper-long-decode"))
    return simulate(model, text, Runs(40, 20_000, seed=1), rate_per_s)[0]


@pytest.mark.parametrize(
    ("text", "rate", "share"),
    [
        ("greedy:watermark=0.01", 2.4, 0.05),
        ("greedy:watermark=0.01", 2.47, 0.33),
        ("greedy:watermark=0.01", 2.6, 1.00),
        ("greedy:watermark=0.2", 2.4, 0.15),
        ("greedy:cap=135", 2.5, 0.50),
        ("greedy:cap=124", 2.6, 0.03),
    ],
)
def test_collapse_shares(text: str, rate: float, share: float) -> None:
    """Two samples of forty runs each: Fisher's exact test at 99.8 %."""
    ours = round(40 * at_rate(text, rate).collapsed_share)
    theirs = round(40 * share)
    result = stats.fisher_exact([[ours, 40 - ours], [theirs, 40 - theirs]])
    assert result.pvalue > 0.002


def test_collapsed_greedy_completes_two_thirds_and_wastes_a_third() -> None:
    greedy = at_rate("greedy:watermark=0.01", 2.6)
    assert greedy.completed_per_s == pytest.approx(1.77, rel=0.05)
    assert 0.25 < greedy.wasted_token_share < 0.45


@pytest.mark.parametrize(("rate", "latency_s"), [(2.60, 43.7), (2.66, 48.8)])
def test_pacing_at_the_memory_limit_never_collapses(
    server: Server, rate: float, latency_s: float
) -> None:
    """Pace C/m; THEORY 6.4's mean latencies within the 99.9 % interval of two such samples."""
    model = poisson_model(Workload(name="long", classes=(LONG,)), server)
    pace = 137_000 / 1_013_012
    result = simulate(model, f"greedy:pace={pace}", Runs(40, 20_000, seed=1), rate)[0]
    assert result.collapsed_share == 0
    assert result.verdict == "stable"
    assert result.latency_s is not None
    assert result.latency_s.half_width is not None
    slack = result.latency_s.half_width * 3.55 / 2.02 * 2**0.5
    assert abs(result.latency_s.mean - latency_s) <= slack


def test_a_cap_of_90_never_collapses_but_saturates(server: Server) -> None:
    model = poisson_model(Workload(name="long", classes=(LONG,)), server)
    result = simulate(model, "greedy:cap=90", Runs(10, 20_000))[0]
    assert result.evictions_per_request == 0
    assert result.completed_per_s == pytest.approx(2.47, rel=0.01)


def test_the_policy_of_a_table_is_its_parameters(table: ThresholdTable) -> None:
    policy = policy_of(table)
    assert policy.policy.name == "greedy"
    assert policy.values == {
        "pace": table.params["pace_per_iteration"],
        "watermark": table.params["watermark_fraction"],
    }
