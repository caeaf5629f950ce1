"""What an engine can run at most: equilibrium, stability, region, tapes and policies honour it."""

from __future__ import annotations

import numpy as np
import pytest

import fluidwait as fw
from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.intake import intake
from fluid.steady.latency.scheduler import default_scheduler, rule_for
from validation.policies import parse_policy
from validation.simulator.model import poisson_model, tape_model

LOAD = fw.Workload.of(chat=fw.Requests(10.0, prompt=500, output=101))
AFFINE = IterationTime.affine(0.01, per_token_s=2e-5)


def server_with(**limits: object) -> Server:
    return Server(
        name="limited",
        source="test",
        kv_capacity_tokens=10**7,
        iteration_time=AFFINE,
        **limits,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("limits", "binding", "intake_s"),
    [
        # 6,000 tokens and 1,010 requests in service per second of intake.
        ({"max_num_batched_tokens": 1_200}, "max_num_batched_tokens", 0.2),
        ({"max_num_seqs": 101}, "max_num_seqs", 0.1),
        ({"max_num_seqs": 101, "max_num_batched_tokens": 1_200}, "max_num_seqs", 0.1),
        ({"max_num_seqs": 404, "max_num_batched_tokens": 1_200}, "max_num_batched_tokens", 0.2),
    ],
)
def test_the_boundary_lies_where_the_engine_is_full(limits, binding, intake_s):
    server = server_with(**limits)
    found = fw.stability(LOAD, server)
    time_s = 0.01 + 2e-5 * 6_000 * intake_s
    assert intake(LOAD, server).limit == (binding, pytest.approx(intake_s))
    assert found.max_scale == pytest.approx(intake_s / time_s)
    assert found.limit_share == pytest.approx(0.01 / time_s)
    assert (found.memory_share, found.half_space_per_s) == (0.0, None)
    assert found.compute_share + found.limit_share == pytest.approx(1)
    seats = found.boundary_per_stage[0] * 101
    assert seats <= limits.get("max_num_seqs", np.inf) * (1 + 1e-9)


def test_a_tight_limit_is_named_and_without_limits_nothing_changes():
    tight = fw.equilibrium(LOAD, server_with(max_num_seqs=4))
    assert tight.binding == "max_num_seqs"
    assert not tight.stable
    assert "engine limit" in str(tight)
    assert "max_num_seqs binds" in tight.sentence
    assert "kv_capacity_tokens" not in _refusal(server_with(max_num_seqs=4))
    plain, roomy = fw.stability(LOAD, server_with()), server_with(max_num_seqs=10**6)
    assert plain.half_space_per_s is not None
    assert fw.stability(LOAD, roomy).max_scale == pytest.approx(plain.max_scale)
    assert fw.equilibrium(LOAD, server_with()).document().keys() == set(
        fw.equilibrium(LOAD, roomy).document()
    )


def _refusal(server: Server) -> str:
    with pytest.raises(fw.InfeasibleError) as caught:
        fw.solve(LOAD, server)
    return str(caught.value)


def test_the_region_follows_the_tightest_limit():
    """Long outputs hold seats, long prompts take tokens: the boundary is cut by both."""
    two = fw.Workload.of(
        prompts=fw.Requests(1.0, prompt=1000, output=2), answers=fw.Requests(1.0, 10, 1000)
    )
    region = fw.region(two, server_with(max_num_seqs=200, max_num_batched_tokens=1_000))
    alone = region.intercepts_per_s
    middle = region.reach(alone / 2)
    assert region.normal_s is None
    assert 1 < middle < 2  # a corner beyond the chord of the axes


def test_requests_beyond_the_longest_are_refused():
    server = server_with(max_model_len=600)
    with pytest.raises(InputError, match=r"601 tokens of prompt and output.*max_model_len 600"):
        fw.equilibrium(LOAD, server)
    tape = fw.Tape(np.array([0.0, 1.0]), np.array([10, 500]), np.array([10, 101]))
    with pytest.raises(InputError, match=r"row 2 of the tape.*drop_longer_than=600"):
        tape_model(tape, server)


def test_or_refused_at_submission_and_counted():
    two = fw.Workload.of(short=fw.Requests(5.0, 10, 10), long=fw.Requests(5.0, 500, 101))
    server = server_with(max_model_len=600)
    found = fw.compare(
        two, server, "greedy", traffic=fw.Traffic(refuse_too_long=True), runs=fw.Runs(2, 500)
    ).results[0]
    assert found.too_long_share == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("policy", "known"),
    [
        ("greedy", {"cap": 64}),
        ("sarathi", {"cap": 64}),
        ("vllm-v0", {"cap": 64}),
        ("vllm-v1", {"max_num_batched_tokens": 4096, "max_num_seqs": 64}),
        ("vllm-v1:max_num_seqs=7", {"max_num_batched_tokens": 4096, "max_num_seqs": 7}),
    ],
)
def test_policies_take_their_defaults_from_the_server(policy, known):
    chosen = parse_policy(policy)
    limits = {"max_num_batched_tokens": 4096, "max_num_seqs": 64}
    numbers = chosen.numbers_on(poisson_model(LOAD, server_with(**limits)))
    names = [one.name for one in chosen.policy.parameters]
    assert {name: numbers[names.index(name)] for name in known} == known
    own = chosen.numbers_on(poisson_model(LOAD, server_with()))
    np.testing.assert_array_equal(own, chosen.numbers)


def test_seats_hold_in_simulation():
    """At most four in service, whatever the policy is called."""
    crowd = fw.Workload.of(chat=fw.Requests(40.0, prompt=10, output=20))
    server = server_with(max_num_seqs=4)
    found = fw.compare(crowd, server, "greedy", runs=fw.Runs(2, 500))
    assert 0 < found.results[0].kv_max_tokens <= 4 * 29


def test_laws_take_them_too():
    limits = {"max_num_batched_tokens": 4096, "max_num_seqs": 64}
    rule = rule_for("vllm-v1", server_with(engine="vllm", **limits))
    assert (rule.budget_tokens, rule.seats) == (4096, 64)
    assert rule_for("vllm-v1:max_num_seqs=8", server_with(**limits)).seats == 8
    assert rule_for("greedy", server_with(**limits)).seats == 64
    assert default_scheduler(server_with(engine="vllm")) == "vllm-v1"
    assert default_scheduler(server_with(engine="sglang")) == "greedy"
    assert fw.equilibrium(LOAD, server_with(engine="vllm")).scheduler == "vllm-v1"
