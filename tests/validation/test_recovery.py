"""Recovery from bursts: exact on a deterministic server, and the collapse of THEORY 6.4."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.result import number
from fluid.server import load_server
from fluid.traces.tape import Tape
from fluid.workload import RequestClass, Workload
from validation.experiments.compare import compare
from validation.experiments.recovery import recovery, with_burst
from validation.policies import parse_policy
from validation.simulator import cpu
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

LONG = RequestClass(name="long", rate_per_s=1.8, prefill_tokens=512, decode_tokens=1000)
SHORT = RequestClass(name="short", rate_per_s=0.9, prefill_tokens=100, decode_tokens=10)
LOAD, SERVER = Workload(name="l", classes=(LONG,)), load_server("paper-long-decode")


def test_a_burst_is_added_in_the_shares_of_the_mix() -> None:
    both = Workload(name="both", classes=(LONG, SHORT))
    model = poisson_model(both, SERVER)
    path = cpu.run_traced(model, cpu.Job(parse_policy("greedy"), 0), 200)
    at_s = float(path.arrived_at_s[40])
    rows = with_burst(model, path, 30, at_s).tape
    assert len(rows) == 230
    assert (np.diff(rows["arrived_at_s"]) >= 0).all()
    burst = rows[rows["arrived_at_s"] == at_s][1:]
    assert np.bincount(burst["shape"]).tolist() == [20, 10]
    rest = np.delete(rows, np.arange(41, 71))
    np.testing.assert_array_equal(rest["arrived_at_s"], path.arrived_at_s)
    np.testing.assert_array_equal(rest["shape"], path.shape_index)


def test_a_small_burst_passes_and_a_large_one_tips_greedy_but_not_the_pace() -> None:
    greedy, paced, runs = "greedy:watermark=0.01", "greedy:pace=0.13524", Runs(5, 4000)
    small = recovery(LOAD, SERVER, greedy, 20, runs=runs)
    large = recovery(LOAD, SERVER, greedy, 300, rate_per_s=2.2, runs=runs)
    cured = recovery(LOAD, SERVER, paced, 300, rate_per_s=2.2, runs=runs)
    assert small.rate_per_s == 1.8
    assert small.recovered_share == 1.0
    assert large.recovered_share == 0.0
    assert large.recovery_s is None
    assert large.collapsed_share == 1.0
    assert large.time == "never"
    assert cured.recovered_share == 1.0
    assert cured.recovery_s is not None
    assert small.recovery_s is not None
    assert small.recovery_s < cured.recovery_s < cured.horizon_s


def test_a_path_that_ends_too_soon_does_not_say_never() -> None:
    """A burst of 4,000 takes over an hour at the 0.9 per second left: the arrivals end before."""
    paced = "greedy:pace=0.13524"
    found = recovery(LOAD, SERVER, paced, 4000, runs=Runs(2, 1500))
    assert found.recovered_share == 0.0
    assert found.collapsed_share == 0.0
    assert found.time == f"not within {number(found.horizon_s)} s"
    assert recovery(LOAD, SERVER, paced, 500, runs=Runs(2, 8000)).recovered_share == 1.0


def test_refusals() -> None:
    with pytest.raises(InputError, match="burst: got 0"):
        recovery(LOAD, SERVER, "greedy", 0, runs=Runs(1, 10))
    with pytest.raises(InputError, match="rate_per_s: got 0"):
        recovery(LOAD, SERVER, "greedy", 1, rate_per_s=0, runs=Runs(1, 10))
    tape = Tape(np.array([0.0, 1.0]), np.array([5, 5]), np.array([5, 5]))
    with pytest.raises(InputError, match="no tape"):
        recovery(tape, SERVER, "greedy", 1, runs=Runs(1, 10))
    with pytest.raises(InputError, match="no tape"):
        compare(tape, SERVER, "greedy", burst=1)
