"""Each rule on a case worked by hand, and facts that its theory gives exactly."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.stages import memory_sums
from fluid.traces.tape import Tape
from fluid.workload import RequestClass, Workload
from tests.support.builders import one_second_server as server
from validation.experiments.simulate import simulate
from validation.policies import parse_policy
from validation.simulator import cpu
from validation.simulator.metrics import verdict
from validation.simulator.model import poisson_model, tape_model
from validation.simulator.runs import Runs

LATE = 1000.0


def played(
    policy: str,
    requests: list[tuple[float, int, int]],
    capacity: int = 10_000,
) -> tuple[list[float], list[float], list[int]]:
    """First tokens, completions and evictions of (arrival, prompt, output) requests.

    As many requests again arrive late enough not to matter; what happens then counts as never.
    """
    rows = [*requests, *[(LATE, 1, 1)] * len(requests)]
    times, prompts, outputs = (np.array(column) for column in zip(*rows, strict=True))
    model = tape_model(Tape(times, prompts, outputs), server(capacity))
    trace = cpu.run_traced(model, cpu.Job(parse_policy(policy), 0), len(rows))
    count = len(requests)
    seconds = [
        np.where(column[:count] < LATE, column[:count], math.inf).tolist()
        for column in (trace.first_token_at_s, trace.completed_at_s)
    ]
    return seconds[0], seconds[1], trace.evicted_times[:count].tolist()


NEVER = math.inf


@pytest.mark.parametrize(
    ("valves", "first_token", "completed"),
    [
        # One request waits; the second makes two; their second stage never has a reason to run.
        ("", [51.0, 51.0], [NEVER, NEVER]),
        # The gate opens at 3 and, for the second request, at 53; each time one stage runs.
        (",max_wait_s=3", [4.0, 54.0], [54.0, NEVER]),
        # Two run at 50; two iterations' time after 51 the rest follows in one go.
        (",drain=2", [51.0, 51.0], [55.0, 55.0]),
        (",drain=0.5", [51.0, 51.0], [53.5, 53.5]),
    ],
)
def test_valves_of_wait(valves: str, first_token: list[float], completed: list[float]) -> None:
    two = [(0.0, 1, 3), (50.0, 1, 3)]
    if valves == ",max_wait_s=3":
        two = [(0.0, 1, 2), (50.0, 1, 2)]
    assert played(f"wait:thresholds=2{valves}", two) == (first_token, completed, [0, 0])


def test_wait_cap_never_waits() -> None:
    three = [(0.0, 1, 2)] * 3
    assert played("wait-cap:thresholds=1", three)[:2] == ([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])


PAIRS = [(float(at), 1, output) for at in (0, 5, 9, 13) for output in (1, 3)]


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        # Segment 2 needs one request at the boundary: it runs whenever two new requests have come.
        ("thresholds=2/1,cuts=1/3", [1.0, 10.0, 6.0, 14.0, 10.0, NEVER, 14.0, NEVER]),
        # It needs two: they gather at 6, run at 9, and must wait for the next two at the boundary.
        ("thresholds=2/2,cuts=1/3", [1.0, NEVER, 6.0, NEVER, 10.0, NEVER, 14.0, NEVER]),
        # Crossing the boundary takes an iteration more.
        (
            "thresholds=2/1,cuts=1/3,boundary_iteration=1",
            [1.0, 14.0, 6.0, NEVER, 10.0, NEVER, 14.0, NEVER],
        ),
        # The drain takes everybody on one second after the last iteration.
        ("thresholds=2/2,cuts=1/3,drain=1", [1.0, 4.0, 6.0, 9.0, 10.0, 13.0, 14.0, 17.0]),
        # The external gate stays closed after 14, whatever the age at the boundary.
        (
            "thresholds=2/2,cuts=1/3,max_wait_s=2",
            [1.0, 10.0, 6.0, 14.0, 10.0, NEVER, 14.0, NEVER],
        ),
    ],
)
def test_nested_wait(text: str, completed: list[float]) -> None:
    assert played(f"nested-wait:{text}", PAIRS)[1] == completed


@pytest.mark.parametrize(
    ("cap", "completed"),
    [
        # As literal WAIT: the gate opens once, and nothing runs after that stage.
        ("", [NEVER, NEVER]),
        # With room for one more, one more has to wait.
        (",cap=3", [NEVER, NEVER]),
        # A full server goes on.
        (",cap=2", [53.0, 53.0]),
    ],
)
def test_wait_authors_pauses_unless_full(cap: str, completed: list[float]) -> None:
    two = [(0.0, 1, 3), (50.0, 1, 3)]
    assert played(f"wait-authors:thresholds=2{cap}", two) == ([51.0, 51.0], completed, [0, 0])


def test_wait_authors_fills_up_to_the_cap() -> None:
    # Each goes on alone; the cap is full, so that nobody waits for company.
    assert played("wait-authors:thresholds=2,cap=1", [(0.0, 1, 2)] * 3)[1] == [2.0, 4.0, 6.0]


def test_nested_authors() -> None:
    # 9: segment 1 opens for two, segment 2 for those of 1 and 6 at the boundary. 13: room for one
    # more only, so that one at the boundary is enough, and one is admitted.
    found = played("nested-authors:thresholds=2/2,cuts=1/3,cap=4", PAIRS)[1]
    assert found == [1.0, 14.0, 6.0, 14.0, 10.0, NEVER, 14.0, NEVER]


@pytest.mark.parametrize("policy", ["wait-authors", "nested-authors"])
def test_the_authors_rules_clear_what_is_left(policy: str) -> None:
    one = RequestClass(name="a", rate_per_s=1.0, prefill_tokens=1, decode_tokens=3)
    model = poisson_model(Workload(name="w", classes=(one,)), server(1000))
    trace = cpu.run_traced(model, cpu.Job(parse_policy(f"{policy}:thresholds=7"), 0), 45)
    assert np.isfinite(trace.completed_at_s).sum() >= 36
    assert not np.isfinite(
        cpu.run_traced(model, cpu.Job(parse_policy("wait:thresholds=7"), 0), 45).completed_at_s[35]
    )


def test_nested_cap_bounds_each_segment() -> None:
    # The second passes segment 1 behind the first, then pauses until segment 2 is free.
    two = [(0.0, 1, 3), (0.0, 1, 3)]
    found = played("nested-cap:thresholds=1/1,cuts=1/3", two)
    assert found == ([1.0, 2.0], [3.0, 5.0], [0, 0])


def test_known_lengths_differ_in_their_order() -> None:
    # KV 1, 2, 3, 4 (volume 10) and 8, 9 (volume 17) do not fit into 9 together.
    two = [(0.0, 1, 4), (0.0, 8, 2)]
    assert played("mc-sf", two, capacity=9)[1] == [6.0, 2.0]
    assert played("svf", two, capacity=9)[1] == [4.0, 6.0]


def test_known_lengths_admit_as_soon_as_the_projection_fits() -> None:
    # KV 5, 6, 7 each in 12 tokens: the second fits when only 7 are left beside its 5.
    two = [(0.0, 5, 3), (0.0, 5, 3)]
    assert played("mc-sf", two, capacity=12) == ([1.0, 3.0], [3.0, 5.0], [0, 0])


def test_a_min_learns_from_evictions() -> None:
    two = [(0.0, 5, 3), (0.0, 5, 3)]
    # Taken for one token each, both are admitted; at 2.0 they need 14 > 12, the last admitted goes
    # and comes back at once: 7 + 5 fit now, and its estimate of 2 tokens ends before more is known.
    assert played("a-min", two, capacity=12) == ([1.0, 1.0], [3.0, 5.0], [0, 1])
    assert played("a-min:lowest_tokens=3", two, capacity=12) == ([1.0, 3.0], [3.0, 5.0], [0, 0])


MIXED = [(0.0, 2, 3), (0.5, 8, 3), (0.5, 3, 3)]


@pytest.mark.parametrize(
    ("policy", "first_token", "first_completed"),
    [
        # 2 | 1 + 3 | 1 + 3 | 2 and 2 of the third | 1 and the last of the third.
        ("dai:budget_tokens=4", [1.0, 4.0, 5.0], 3.0),
        # No deadline: prompts first, 2 | 3 + 1 | 4 | 3 and one decode | three decodes.
        ("slai:budget_tokens=4,tbt_target_s=inf", [1.0, 4.0, 2.0], 5.0),
        # Every decode is due: 2 | 1 + 3 | 2 + 2 | 1 + 3 | 1 + 3 with the second prompt last.
        ("slai:budget_tokens=4,tbt_target_s=0", [1.0, 5.0, 2.0], 3.0),
        # Slack for one iteration: 2 | 3 + 1 | 1 + 3 | the third's 1 + 3 | the first's 1 + 1.
        ("slai:budget_tokens=4,tbt_target_s=2.5", [1.0, 5.0, 2.0], 5.0),
    ],
)
def test_mixed_batches(policy: str, first_token: list[float], first_completed: float) -> None:
    found = played(policy, MIXED)
    assert found[0] == first_token
    assert found[1][0] == first_completed


def test_flow_control_activates_up_to_its_caps() -> None:
    assert played("flow-control:thresholds=2", [(0.0, 1, 2)] * 3)[1] == [2.0, 2.0, 3.0]


def dai_server() -> Server:
    """t_b = c + a⌈b/128⌉ for up to 512 tokens."""
    c, a, width, steps = 11.28e-3, 35.47e-3, 128.0, 4
    tokens = [0.0]
    seconds = [c + a]
    for step in range(1, steps):
        tokens += [step * width, step * width]
        seconds += [c + step * a, c + (step + 1) * a]
    tokens.append(steps * width)
    seconds.append(c + steps * a)
    return server(10**7, "decode").model_copy(
        update={
            "iteration_time": IterationTime(
                tokens_knots=tuple(tokens), seconds_knots=tuple(seconds)
            )
        }
    )


def test_dai_limit() -> None:
    """THEORY 6.6: 512 tokens per 153.16 ms at 200 tokens a request are 16.71 requests/s."""
    limit = 512 / (11.28e-3 + 4 * 35.47e-3) / 200
    assert limit == pytest.approx(16.71, abs=0.005)
    one = RequestClass(name="a", rate_per_s=limit, prefill_tokens=100, decode_tokens=100)
    model = poisson_model(Workload(name="w", classes=(one,)), dai_server())
    policy = parse_policy("dai")
    verdicts = [
        verdict(
            cpu.run(model, [cpu.Job(policy, k, rate_scale=scale) for k in range(8)], 20_000)
        ).word
        for scale in (0.95, 1.05)
    ]
    assert verdicts == ["stable", "unstable"]
    flooded = cpu.run_traced(model, cpu.Job(policy, 0, rate_scale=2.0), 10_000)
    start_s = flooded.series[:, 0]
    full = (start_s > 50.0) & (start_s < flooded.arrived_at_s[-1])
    np.testing.assert_allclose(np.diff(start_s[full]), 0.15316, rtol=1e-9)
    span_s = np.ptp(start_s[full])
    done = flooded.completed_at_s[flooded.completed_at_s > start_s[full][0]]
    per_s = np.count_nonzero(done <= start_s[full][-1]) / span_s
    # At most 512 requests stand at different stages at the two ends.
    assert per_s == pytest.approx(limit, abs=512 / span_s)


def dong_cao() -> Workload:
    """Context 10 and 20, 40, 60 decodes: stages 1 … l' with l + s tokens each."""
    return Workload(
        name="slots",
        classes=tuple(
            RequestClass(
                name=f"{decodes}",
                rate_per_s=6.0,
                prefill_tokens=0,
                context_tokens=10,
                decode_tokens=decodes,
            )
            for decodes in (20, 40, 60)
        ),
    )


def test_dong_cao_peak_and_boundary() -> None:
    """THEORY 6.6: 4 of each length per slot hold 16,240 tokens; 16,492 bear 4.0621 per slot."""
    sums = memory_sums(dong_cao(), server(16_492))
    assert 4 * sums.sum() == 16_240
    assert 16_492 / sums.sum() == pytest.approx(4.0621, abs=5e-5)
    model = poisson_model(dong_cao(), server(16_492))
    caps = [parse_policy(f"flow-control:thresholds={b}/{b}/{b}") for b in (4, 5)]
    fits, too_many = cpu.run(model, [cpu.Job(one, 0) for one in caps], 8000)
    assert (fits.kv_max_tokens, fits.evictions) == (16_240, 0)
    assert fits.kv_mean_tokens == pytest.approx(16_240, rel=1e-9)
    assert fits.completed / fits.window_s == pytest.approx(12.0, rel=0.01)
    assert too_many.evictions > 0


@pytest.mark.parametrize(
    "policy",
    ["wait", "wait:max_wait_s=0.3", "wait:drain=1", "wait-cap", "flow-control"],
)
@pytest.mark.parametrize("number", range(20))
def test_residents_never_exceed_the_thresholds(policy: str, number: int) -> None:
    """THEORY 3.7: from empty at most n_j per stage, so that KV ≤ M(n) on every path."""
    rng = random.Random(number)
    classes = tuple(
        RequestClass(
            name=f"class-{index}",
            rate_per_s=rng.uniform(0.2, 4.0),
            prefill_tokens=rng.randint(1, 30),
            decode_tokens=rng.randint(1, 12),
        )
        for index in range(rng.randint(1, 3))
    )
    workload = Workload(name="random", classes=classes)
    thresholds = [rng.randint(1, 4) for _ in classes]
    small = server(10**6, rng.choice(["prefill", "decode"]), rng.choice([1, 4, 16]))
    bound = int(memory_sums(workload, small) @ thresholds)
    text = policy + ("," if ":" in policy else ":") + "thresholds=" + "/".join(map(str, thresholds))
    model = poisson_model(workload, small.model_copy(update={"kv_capacity_tokens": bound}))
    trace = cpu.run_traced(model, cpu.Job(parse_policy(text), 0), 400)
    assert trace.series[:, 1].max() <= bound
    assert trace.evicted_times.sum() == 0
    ample = cpu.run_traced(poisson_model(workload, small), cpu.Job(parse_policy(text), 0), 400)
    np.testing.assert_array_equal(trace.completed_at_s, ample.completed_at_s)


def test_valves_are_off_and_named() -> None:
    plain, valved = (parse_policy(f"wait:thresholds=2{v}") for v in ("", ",drain=3"))
    assert plain.numbers[-2:].tolist() == [math.inf, 0.0]
    assert valved.label == "wait:drain=3,thresholds=2"


def test_segments_default_to_the_distinct_lengths() -> None:
    model = poisson_model(dong_cao(), server())
    assert parse_policy("nested-cap:thresholds=3/2/1").threshold_table(model).tolist() == [
        *(3, 2, 1),
        *(20, 40, 60),
    ]
    shown = simulate(model, "nested-cap:thresholds=9/9,cuts=30/60", Runs(1, 50))
    assert shown[0].params == {"thresholds": [9, 9], "cuts": [30, 60]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nested-wait", "integers ≥ 1, one per segment"),
        ("nested-wait:thresholds=1/2", "3 integers, one per segment"),
        ("nested-wait:thresholds=1/2,cuts=30/50", "cuts: got [30, 50]; allowed: the last one"),
        ("nested-wait:thresholds=1/2,cuts=60", "ascending integers ≥ 1, one per threshold"),
        ("nested-wait:thresholds=1/2,cuts=60/30", "ascending integers ≥ 1, one per threshold"),
        ("nested-wait:thresholds=1/2,cuts=0.5/3", "cuts: got '0.5/3'"),
        ("wait:thresholds=1/2/3,cuts=1/2/3", "none, the rule has no segments"),
    ],
)
def test_bad_segments(text: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        parse_policy(text).threshold_table(poisson_model(dong_cao(), server()))
    assert told in str(error.value)
