"""The engine against hand cases and queueing theory, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.traces.tape import Tape
from tests.support.builders import one_class as workload
from tests.support.builders import one_second_server as server
from validation.experiments.simulate import simulate
from validation.policies import parse_policy
from validation.simulator import cpu
from validation.simulator.metrics import interval
from validation.simulator.model import poisson_model, tape_model
from validation.simulator.runs import Runs


def tape(times: list[float], prompts: list[int], outputs: list[int]) -> Tape:
    return Tape(np.array(times), np.array(prompts), np.array(outputs))


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_one_at_a_time_is_m_d_1(load: float) -> None:
    """Cap 1 and a fixed iteration time: Pollaczek–Khinchine for deterministic service."""
    model = poisson_model(workload(load, 1, 1), server())
    jobs = [cpu.Job(parse_policy("greedy:cap=1"), k) for k in range(30)]
    found = interval([one.mean_s[-1, 0] for one in cpu.run(model, jobs, 20_000)], level=0.99)
    expected = 1.0 + load / (2 * (1 - load))
    assert found.low <= expected <= found.high
    assert found.half_width < 0.1 * expected


def test_hand_case_of_greedy_with_evictions() -> None:
    """THEORY 3.4: C = 12, l = l' = 1, paper convention; 8 prompts admitted, 6 can go on."""
    trace = cpu.run_traced(
        tape_model(tape([0.0, *[0.5] * 8], [1] * 9, [1] * 9), server(12, "decode")),
        cpu.Job(parse_policy("greedy"), 0),
        requests=9,
    )
    # Iteration 0: the first alone. At 1: its decode (2 tokens) and 8 prompts (8 tokens), 10 ≤ 12.
    # At 2: 8 decodes would need 16 > 12: the last two are evicted and wait for free memory.
    assert trace.completed_at_s[0] == 2.0
    assert trace.evicted_times.tolist() == [0] * 7 + [1, 1]
    assert trace.completed_at_s[1:7].tolist() == [3.0] * 6
    assert trace.series[:3, 1].tolist() == [1, 10, 12]


def test_first_token_convention_shifts_everything_by_one_stage() -> None:
    single = tape([0.0, 100.0], [10, 10], [5, 5])
    policy = cpu.Job(parse_policy("greedy"), 0)
    engine = cpu.run_traced(tape_model(single, server()), policy, 2)
    paper = cpu.run_traced(tape_model(single, server(first_token="decode")), policy, 2)
    assert (engine.first_token_at_s[0], engine.completed_at_s[0]) == (1.0, 5.0)
    assert (paper.first_token_at_s[0], paper.completed_at_s[0]) == (2.0, 6.0)


def test_blocks_round_memory_up() -> None:
    trace = cpu.run_traced(
        tape_model(tape([0.0, 50.0], [15, 15], [3, 3]), server(block_tokens=16)),
        cpu.Job(parse_policy("greedy"), 0),
        requests=2,
    )
    assert trace.series[:3, 1].tolist() == [16, 16, 32]


def test_pace_spreads_admissions() -> None:
    trace = cpu.run_traced(
        tape_model(tape([0.0] * 5 + [0.5], [1] * 6, [20] * 6), server()),
        cpu.Job(parse_policy("greedy:pace=0.5"), 0),
        requests=6,
    )
    # Credit 1 + 0.5 at first, then one admission every second iteration.
    assert trace.first_token_at_s.tolist() == [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]


def test_watermark_keeps_memory_free_but_never_blocks_an_empty_server() -> None:
    model = tape_model(tape([0.0, 0.0, 9.0], [60] * 3, [2] * 3), server(130))
    greedy = cpu.run_traced(model, cpu.Job(parse_policy("greedy"), 0), 3)
    careful = cpu.run_traced(model, cpu.Job(parse_policy("greedy:watermark=0.6"), 0), 3)
    assert greedy.completed_at_s[:2].tolist() == [2.0, 2.0]
    assert careful.completed_at_s[:2].tolist() == [2.0, 4.0]


def test_wait_collects_its_threshold() -> None:
    trace = cpu.run_traced(
        tape_model(tape([0.0, 5.0, 5.5, 9.0], [1] * 4, [2] * 4), server()),
        cpu.Job(parse_policy("wait:thresholds=2"), 0),
        requests=4,
    )
    # Two wait at 5.0; their second stage runs when the next two wait, at 9.0.
    assert trace.first_token_at_s[:2].tolist() == [6.0, 6.0]
    assert trace.completed_at_s[:2].tolist() == [10.0, 10.0]
    assert trace.first_token_at_s[2:].tolist() == [10.0, 10.0]
    assert np.isnan(trace.completed_at_s[2:]).all()


def test_results_do_not_depend_on_threads() -> None:
    model = poisson_model(workload(5.0, 30, 10), server(400))
    jobs = [cpu.Job(parse_policy("greedy"), k, rate_scale=0.1 + 0.01 * k) for k in range(12)]
    alone, together = (cpu.run(model, jobs, 500, threads=n) for n in (1, 2))
    for one, two in zip(alone, together, strict=True):
        for field in one.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(one, field), getattr(two, field))


def test_policies_see_the_same_arrivals() -> None:
    model = poisson_model(workload(5.0, 30, 10), server(400))
    traces = [
        cpu.run_traced(model, cpu.Job(parse_policy(name), 3, seed=9), 200)
        for name in ("greedy", "greedy:pace=0.1", "wait:thresholds=2")
    ]
    for other in traces[1:]:
        np.testing.assert_array_equal(traces[0].arrived_at_s, other.arrived_at_s)


def test_arrivals_are_poisson_at_the_workload_rate() -> None:
    model = poisson_model(workload(5.0, 30, 10), server())
    gaps = [
        np.diff(cpu.run_traced(model, cpu.Job(parse_policy("greedy"), k), 2000).arrived_at_s)
        for k in range(20)
    ]
    mean = interval([one.mean() for one in gaps], level=0.99)
    assert mean.low <= 0.2 <= mean.high
    spread = interval([one.var() for one in gaps], level=0.99)
    assert spread.low <= 0.04 <= spread.high


def test_stranded_requests_are_reported_unfinished() -> None:
    model = poisson_model(workload(1.0, 10, 5), server())
    result = cpu.run(model, [cpu.Job(parse_policy("wait:thresholds=90"), 0)], 100)[0]
    assert result.unfinished > 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sjf", "policy: got 'sjf'; allowed: did you mean svf? One of greedy, wait"),
        ("greedy:speed=3", "got 'speed'; allowed: one of watermark, cap, pace"),
        ("greedy:watermark=1.5", "watermark: got '1.5'; allowed: a number from 0 to 0.99"),
        ("greedy:cap=many", "cap: got 'many'"),
        ("greedy:cap=nan", "cap: got 'nan'"),
        ("greedy:victim=me", "victim: got 'me'; allowed: one of last-admitted, latest-arrival"),
        ("greedy:cap", "got 'cap'; allowed: parameters as key=value"),
        ("wait", "thresholds: got []; allowed: integers ≥ 1"),
        ("wait:thresholds=0", "thresholds: got [0]"),
        ("wait:thresholds=1.5", "thresholds: got '1.5'"),
    ],
)
def test_bad_policies(text: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        parse_policy(text)
    assert told in str(error.value)


def test_bad_runs() -> None:
    model = poisson_model(workload(1.0, 10, 5), server())
    with pytest.raises(InputError, match="replications: got 0; allowed: at least 1"):
        Runs(replications=0)
    with pytest.raises(InputError, match="requests: got 0"):
        Runs(requests=0)
    with pytest.raises(InputError, match="seed: got -1"):
        Runs(seed=-1)
    with pytest.raises(InputError, match="requests: got 0"):
        cpu.run(model, [cpu.Job(parse_policy("greedy"), 0)], 0)
    with pytest.raises(InputError, match="policies: got 0; allowed: at least 1"):
        simulate(model, [], Runs(1, 10))
    with pytest.raises(InputError, match=r"rate_per_s: got -1\.0; allowed: requests"):
        simulate(model, "greedy", Runs(1, 10), -1.0)
    with pytest.raises(InputError, match="1 integers, one per class"):
        simulate(model, "wait:thresholds=1/2", Runs(1, 10))
    with pytest.raises(InputError, match="14 KV tokens at its end'; allowed: at most the 13"):
        poisson_model(workload(1.0, 10, 5), server(13))
    with pytest.raises(InputError, match="row 2 of the tape"):
        tape_model(tape([0.0, 1.0], [5, 10], [5, 5]), server(13))
