"""Verdicts from the path of the backlog: known answers, error rates, invariances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.traces.tape import Tape
from fluid.workload import RequestClass, Workload
from validation.policies import parse_policy
from validation.reference import REFERENCE_POLICIES, Request, simulate_slowly
from validation.simulator import cpu
from validation.simulator.arrivals import parse_arrivals
from validation.simulator.backlog import STABLE_ERROR, UNSTABLE_ERROR, Verdict, verdict
from validation.simulator.metrics import Replication
from validation.simulator.model import Model, poisson_model, tape_model
from validation.simulator.state import PATH_COLUMNS, PATH_ROWS

SECOND = Server(
    name="one",
    source="test",
    kv_capacity_tokens=16,
    block_tokens=1,
    iteration_time=IterationTime.affine(1.0, 0.0, 0.0),
)
"""One request per second under `greedy:cap=1`: an M/D/1 queue."""

ONE_BY_ONE = parse_policy("greedy:cap=1")


START = 400
"""Backlog at the start of a random walk, far above its fluctuations."""


@dataclass(frozen=True)
class Path:
    """A recording made up by hand."""

    path: NDArray[np.float64]
    stuck: bool = False


def single(arrivals: str = "poisson") -> Model:
    one = RequestClass(name="c", rate_per_s=1.0, prefill_tokens=1, decode_tokens=1)
    return poisson_model(Workload(name="w", classes=(one,)), SECOND, parse_arrivals(arrivals))


def ran(rho: float, requests: int, count: int, arrivals: str = "poisson") -> list[Replication]:
    jobs = [cpu.Job(ONE_BY_ONE, k, 5, rho) for k in range(count)]
    return cpu.run(single(arrivals), jobs, requests)


def walk(growth: float, rng: np.random.Generator, arrivals: int = 20_000) -> Path:
    """A queue of unit services far from empty: a random walk with drift (no idleness)."""
    gaps = rng.exponential(1 - growth, arrivals)
    clock_s = np.cumsum(gaps)
    in_system = START + np.arange(1, arrivals + 1) - np.floor(clock_s)
    return recorded(clock_s, np.maximum(in_system, 1), arrivals)


def recorded(clock_s: NDArray[np.float64], in_system: NDArray[np.float64], arrivals: int) -> Path:
    columns = np.zeros((arrivals, len(PATH_COLUMNS)))
    columns[:, 0] = np.arange(1, arrivals + 1) + START
    columns[:, 1] = clock_s
    columns[:, 2], columns[:, 3] = in_system, in_system - 1
    columns[:, 4], columns[:, 5] = in_system, columns[:, 0]
    return Path(columns[:: max(1, arrivals // PATH_ROWS)])


def test_ten_requests_never_two_at_once_are_stable() -> None:
    """The smallest recording of an idle server that a benchmark leaves."""
    times = np.array([0.0, 10, 20, 30, 40, 50, 60, 79, 80, 90])
    tape = Tape(times, np.full(10, 200), np.full(10, 150))
    model = tape_model(tape, load_server("a100-80gb-llama-2-7b"))
    found = verdict(cpu.run(model, [cpu.Job(parse_policy("vllm-v1"), 0)], 0))
    assert found.word == "stable"
    assert found.high < 0
    assert found.idle_shares[0] > 0.8
    assert found.more_requests is None


@pytest.mark.parametrize(("rho", "word"), [(0.5, "stable"), (0.9, "stable"), (1.1, "unstable")])
@pytest.mark.parametrize("arrivals", ["poisson", "gamma:cv=3", "mmpp:ratio=5,mean_s=10"])
def test_a_queue_of_one_server_is_judged_right(rho: float, word: str, arrivals: str) -> None:
    assert verdict(ran(rho, 10_000, 8, arrivals)).word == word


@pytest.mark.parametrize("rho", [0.5, 1.2])
def test_the_growth_is_that_of_the_queue(rho: float) -> None:
    """The netput grows by 1 − 1/ρ per arrival."""
    found = verdict(ran(rho, 4000, 20))
    assert found.low < 1 - 1 / rho < found.high


def test_deterministic_arrivals_are_decided_at_once() -> None:
    assert verdict(ran(0.95, 300, 1, "deterministic")).word == "stable"
    assert verdict(ran(1.05, 3000, 1, "deterministic")).word == "unstable"


def test_errors_on_walks_with_no_drift_are_as_rare_as_promised() -> None:
    """Size of the test on paths at the limit itself: inside the 99.9 % binomial interval."""
    rng = np.random.default_rng(3)
    words = [verdict([walk(0.0, rng)]).word for _ in range(400)]
    allowed = stats.binom.ppf(0.999, len(words), UNSTABLE_ERROR)
    assert words.count("unstable") <= allowed
    # Three proofs of stability are tried on a path that is never empty.
    assert words.count("stable") <= stats.binom.ppf(0.999, len(words), 3 * STABLE_ERROR)


def test_power_on_walks_with_drift() -> None:
    """20,000 arrivals, drift 0.05: seven standard errors."""
    rng = np.random.default_rng(4)
    up = [verdict([walk(0.05, rng)]).word for _ in range(100)]
    assert up.count("unstable") >= 95
    assert up.count("stable") == 0


@pytest.mark.parametrize("rho", [0.05, 0.15, 0.5, 0.9])
def test_short_recordings_are_never_called_unstable(rho: float) -> None:
    for requests in (10, 30, 100):
        words = [verdict([one]).word for one in ran(rho, requests, 40)]
        assert words.count("unstable") <= stats.binom.ppf(0.999, 40, UNSTABLE_ERROR)


def test_a_recording_shorter_than_ten_sojourns_says_how_many_requests_it_needs() -> None:
    one = RequestClass(name="c", rate_per_s=10.0, prefill_tokens=300, decode_tokens=100)
    model = poisson_model(Workload(name="w", classes=(one,)), load_server("a100-80gb-llama-2-7b"))
    found = verdict(cpu.run(model, [cpu.Job(parse_policy("vllm-v1"), 0)], 60))
    assert found.word == "undecided"
    assert found.more_requests is not None
    assert "sojourns" in found.reason
    enough = 60 + 3 * found.more_requests
    assert verdict(cpu.run(model, [cpu.Job(parse_policy("vllm-v1"), 0)], enough)).word == "stable"


def test_rescaled_time_changes_nothing() -> None:
    original = ran(0.8, 2000, 3)
    scaled = []
    for one in original:
        path = one.path.copy()
        for name in ("clock_s", "idle_s", "spare_s", "room_s", "held_s"):
            path[:, PATH_COLUMNS.index(name)] *= 7.0
        scaled.append(Path(path))
    assert_alike(verdict(original), verdict(scaled))


def test_permuted_replications_and_classes_change_nothing() -> None:
    runs = ran(0.8, 2000, 4)
    assert_alike(verdict(runs), verdict(runs[::-1]))
    lengths = [(100, 20), (600, 50)]
    words = []
    for order in (lengths, lengths[::-1]):
        classes = tuple(
            RequestClass(name=f"{p}", rate_per_s=3.0, prefill_tokens=p, decode_tokens=d)
            for p, d in order
        )
        model = poisson_model(
            Workload(name="w", classes=classes), load_server("a100-80gb-llama-2-7b")
        )
        words.append(verdict(cpu.run(model, [cpu.Job(parse_policy("vllm-v1"), 0)], 3000)).word)
    assert words == ["stable", "stable"]


def assert_alike(one: Verdict, other: Verdict) -> None:
    assert one.word == other.word
    assert one.growth_per_arrival == pytest.approx(other.growth_per_arrival)
    assert one.idle_shares == pytest.approx(sorted(other.idle_shares)) or sorted(
        one.idle_shares
    ) == pytest.approx(sorted(other.idle_shares))


def test_one_collapsed_replication_is_enough() -> None:
    runs = [*ran(0.6, 4000, 5), *ran(1.3, 4000, 1)]
    found = verdict(runs)
    assert found.word == "unstable"
    assert found.growing == 1


def test_requests_that_nothing_can_serve_are_unstable() -> None:
    base = ran(0.5, 100, 1)[0]
    assert verdict([Path(base.path, stuck=True)]).word == "unstable"


HOLDING = ("wait:thresholds=20", "wait:thresholds=20,max_wait_s=1", "nested-wait:thresholds=20")
"""Rules that keep requests back until a batch is full: at most 400 of prompt 512 and output 20."""


def held(policy: str, rate_per_s: float, requests: int, count: int = 4) -> list[Replication]:
    """The server carries about 25 /s."""
    one = RequestClass(name="c", rate_per_s=rate_per_s, prefill_tokens=512, decode_tokens=20)
    model = poisson_model(Workload(name="w", classes=(one,)), load_server("a100-80gb-llama-2-7b"))
    return cpu.run(model, [cpu.Job(parse_policy(policy), k, 3) for k in range(count)], requests)


@pytest.mark.parametrize("policy", HOLDING)
@pytest.mark.parametrize("rate_per_s", [5.0, 20.0])
def test_a_standing_inventory_is_no_growth(policy: str, rate_per_s: float) -> None:
    """Also where some of the window are still held when the arrivals end."""
    for requests in (30, 100, 300):
        runs = held(policy, rate_per_s, requests)
        assert all(one.unfinished > 0 for one in runs)
        assert verdict(runs).word == "undecided"
    assert verdict(held(policy, rate_per_s, 1_000)).word == "stable"
    assert verdict(held(policy, rate_per_s, 5_000)).word == "stable"


@pytest.mark.parametrize("policy", HOLDING)
def test_a_rule_that_holds_back_can_still_be_overloaded(policy: str) -> None:
    assert verdict(held(policy, 30.0, 1_000)).word == "undecided"
    assert verdict(held(policy, 30.0, 10_000)).word == "unstable"


def test_a_rule_that_rests_while_more_and_more_wait_is_not_stable() -> None:
    """It sleeps half of the time, and leaves every tenth request behind."""
    arrivals = 4_000
    times = np.arange(1, arrivals + 1.0)
    path = recorded(times, START + 0.1 * times, arrivals).path
    path[:, PATH_COLUMNS.index("held_s")] = 0.5 * path[:, 1]
    assert verdict([Path(path)]).word != "stable"


def test_an_open_verdict_always_says_how_many_more_requests() -> None:
    for rho in (0.5, 0.98, 1.02, 3.0):
        for requests in (5, 50, 500):
            for one in ran(rho, requests, 6):
                found = verdict([one])
                assert (found.more_requests is None) == (found.word != "undecided")
    nobody = verdict(held("wait:thresholds=20", 5.0, 30))
    assert nobody.reason == "nobody has completed yet"
    assert nobody.more_requests is not None


def test_the_path_is_evenly_thinned_whatever_the_length() -> None:
    for requests in (50, 1000, 40_000):
        path = ran(0.7, requests, 1)[0].path
        assert len(path) < PATH_ROWS
        if requests > PATH_ROWS:
            assert len(path) >= PATH_ROWS // 2 - 1
            steps = np.diff(path[:, 0])
            assert steps.max() <= 1.5 * steps.min() + 12
        assert (np.diff(path[:, 1]) > 0).all()


def test_the_path_is_that_of_the_slow_simulator() -> None:
    """Every sample: requests arrived, in the system and waiting, and outputs owed."""
    model = single()
    trace = cpu.run_traced(model, cpu.Job(ONE_BY_ONE, 0, 2, 0.9), 120)
    requests = [Request(k, float(at), 0, 1, 0, 1) for k, at in enumerate(trace.arrived_at_s)]
    rule = REFERENCE_POLICIES["greedy"]
    seen: dict[float, tuple[int, int]] = {}

    def watched(state: object) -> list[Request]:
        batch = rule(state)  # type: ignore[arg-type]
        seen[state.clock_s] = (len(state.waiting), len(state.residents))  # type: ignore[attr-defined]
        return batch

    simulate_slowly(requests, SECOND, watched, {"cap": 1}, steps=len(trace.series))
    for row in trace.backlog:
        waiting, residents = seen[min(seen, key=lambda at: abs(at - row[1]))]
        assert (row[2], row[3]) == (waiting + residents, waiting)
        assert row[4] == pytest.approx(row[2] * row[5] / row[0])
        assert row[0] == (trace.arrived_at_s <= row[1] + 1e-9).sum()


def test_idle_time_is_what_no_iteration_fills() -> None:
    one = ran(0.5, 2000, 1)[0]
    path = one.path
    assert path[-1, PATH_COLUMNS.index("idle_s")] == pytest.approx(
        path[-1, 1] - (path[-1, 0] - path[-1, 2]), abs=1.5
    )
