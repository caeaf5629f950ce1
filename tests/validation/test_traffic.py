"""Closed loops, finite jobs, bounded queues and patience against what is known of them exactly."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.overload.fixed_clients import fixed_clients
from fluid.overload.impatience import Patience
from fluid.server import Server
from fluid.traces.tape import Tape
from fluid.workload import RequestClass, Slo, Workload
from tests.support.builders import workload
from tests.support.traffic_cases import Drawn, random_traffic_case
from validation.experiments.compare import compare
from validation.experiments.simulate import PolicyResult
from validation.policies import parse_policy
from validation.reference import REFERENCE_POLICIES, simulate_slowly
from validation.simulator import cpu
from validation.simulator.metrics import Replication, interval
from validation.simulator.model import poisson_model, tape_model
from validation.simulator.runs import Runs
from validation.simulator.traffic.clients import Clients
from validation.simulator.traffic.job import FiniteJob
from validation.simulator.traffic.outputs import Outputs, parse_outputs
from validation.simulator.traffic.queue_limit import QueueLimit
from validation.simulator.traffic.traffic import Traffic

ITERATION_S = 0.05
FIXED = Server(
    name="fixed",
    source="test",
    kv_capacity_tokens=10_000,
    first_token="prefill",
    iteration_time=IterationTime.affine(overhead_s=ITERATION_S),
)
"""Every iteration takes as long; a request of o outputs is o iterations in service."""
ONE_AT_A_TIME = "greedy:cap=1"


def runs(
    load: Workload, traffic: Traffic, policy: str, replications: int, requests: int
) -> list[Replication]:
    jobs = [cpu.Job(parse_policy(policy), k, seed=5) for k in range(replications)]
    return cpu.run(poisson_model(load, FIXED, traffic=traffic), jobs, requests)


def found(load: Workload, traffic: Traffic, policy: str, requests: int) -> PolicyResult:
    return compare(load, FIXED, policy, traffic=traffic, runs=Runs(1, requests)).results[0]


@pytest.mark.parametrize("name", ["greedy", "vllm-v1", "wait"])
def test_littles_law_holds_over_the_whole_run(name: str) -> None:
    """∫ N dt from what the policy holds equals Σ sojourns from the requests, the last ones cut."""
    some = 0
    for number in range(24):
        case = random_traffic_case(name, number)
        job = cpu.Job(case.case.policy, 0, case.case.seed)
        one = cpu.run(case.model, [job], 60)[0]
        assert one.system_mean * one.duration_s == pytest.approx(one.sojourns_s, rel=1e-9)
        some += one.sojourns_s > 0
    assert some > 20


@pytest.mark.parametrize("think_s", [0.0, 0.7])
def test_one_client_alone(think_s: float) -> None:
    """A client that has the server for itself: 1/(Z + R), which the fluid model knows too."""
    load = workload((1.0, 20, 4))
    one = found(load, Traffic(clients=Clients(1, think_s)), "greedy", 100)
    assert one.latency_s is not None
    assert one.latency_s.mean == pytest.approx(4 * ITERATION_S, rel=1e-12)
    assert one.completed_per_s == pytest.approx(1 / (think_s + 4 * ITERATION_S), rel=1e-12)
    assert one.completed_per_s == pytest.approx(
        fixed_clients(load, FIXED, 1, think_s=think_s).completed_per_s, rel=1e-9
    )
    assert (one.verdict, one.rate_per_s, one.growth_per_arrival) == ("closed loop", None, None)


def test_clients_with_a_fixed_iteration_time() -> None:
    """N clients without think time complete N/(S̄·τ), whatever the order of their lengths."""
    load = workload((1.0, 20, 3), (1.0, 20, 9))
    sample = runs(load, Traffic(clients=Clients(7)), "greedy", 10, 2_000)
    rates = interval([one.completed / one.window_s for one in sample], level=0.99)
    assert rates.half_width < 0.02 * rates.mean
    assert rates.low < 7 / (6 * ITERATION_S) < rates.high
    in_system = [one.system_mean for one in sample]
    np.testing.assert_allclose(in_system, 7, rtol=1e-9)


def test_think_times_leave_the_clients_away() -> None:
    """N = X·(Z + R), N counted over the cycle of each client."""
    load = workload((1.0, 20, 3), (1.0, 20, 9))
    traffic = Traffic(clients=Clients(20, 1.5, "exponential"))
    sample = runs(load, traffic, "greedy:cap=4", 10, 4_000)
    rate = interval([one.completed / one.window_s for one in sample])
    cycles = [one.completed / one.window_s * (1.5 + one.mean_s[-1, 0]) for one in sample]
    clients = interval(cycles, level=0.99)
    assert clients.half_width < 0.02 * 20
    assert clients.low < 20 < clients.high
    assert rate.mean < 4 / (6 * ITERATION_S)


def test_a_job_all_at_once() -> None:
    """One after the other: the k-th of n takes k services, and so does the makespan."""
    limited = RequestClass(
        name="a",
        rate_per_s=1.0,
        prefill_tokens=20,
        decode_tokens=4,
        slo=Slo(ttft_s=1.0, latency_s=1.7, tpot_s=1.0),
    )
    load = Workload(name="job", classes=(limited,))
    one = found(load, Traffic(job=FiniteJob(at_once=True)), ONE_AT_A_TIME, 50)
    service_s = 4 * ITERATION_S
    assert one.makespan_s == pytest.approx(50 * service_s)
    assert one.completed_per_s == pytest.approx(1 / service_s)
    assert one.latency_s is not None
    assert one.ttft_s is not None
    assert one.latency_s.mean == pytest.approx(25.5 * service_s)
    assert one.ttft_s.mean == pytest.approx(24.5 * service_s + ITERATION_S)
    # Served at 0.2, 0.4, …: the first tokens of five come within 1 s, all of eight within 1.7 s.
    assert one.met_limits_share == pytest.approx(5 / 50)
    assert one.verdict == "finite job"


def test_a_tape_at_one_instant_is_a_job() -> None:
    alike = np.full(30, 20), np.full(30, 4)
    tape = Tape(np.full(30, 5.0), *alike)
    one = compare(tape, FIXED, ONE_AT_A_TIME).results[0]
    assert (one.verdict, one.completed_share, one.unfinished_requests) == ("finite job", 1.0, 0.0)
    assert one.makespan_s == pytest.approx(30 * 4 * ITERATION_S)
    recorded = Tape(np.arange(30) * 0.1, *alike)
    as_recorded = compare(recorded, FIXED, ONE_AT_A_TIME, traffic=Traffic(job=FiniteJob()))
    assert as_recorded.results[0].makespan_s == pytest.approx(30 * 4 * ITERATION_S)
    # Clients send what is recorded, one request after another.
    loop = Traffic(clients=Clients(2), job=FiniteJob())
    two = compare(recorded, FIXED, "greedy", traffic=loop).results[0]
    assert two.makespan_s == pytest.approx(15 * 4 * ITERATION_S)


def loss_of_m_d_1_k(load: float, places: int) -> float:
    """Share of arrivals lost by M/D/1/K, from the chain at departures (Gross & Harris)."""
    arrivals = [math.exp(-load) * load**k / math.factorial(k) for k in range(places)]
    chain = np.zeros((places, places))
    for here in range(places):
        first = max(here - 1, 0)
        for there in range(first, places - 1):
            chain[here, there] = arrivals[there - first]
        chain[here, -1] = 1 - chain[here].sum()
    law = np.linalg.lstsq(
        np.vstack([chain.T - np.eye(places), np.ones(places)]),
        np.append(np.zeros(places), 1.0),
        rcond=None,
    )[0]
    return float(1 - 1 / (law[0] + load))


@pytest.mark.parametrize(("load", "waiting"), [(0.9, 2), (1.3, 5)])
def test_refused_share_of_m_d_1_k(load: float, waiting: int) -> None:
    rate_per_s = load / ITERATION_S
    traffic = Traffic(queue=QueueLimit(requests=waiting))
    sample = runs(workload((rate_per_s, 20, 1)), traffic, ONE_AT_A_TIME, 40, 3_000)
    refused = interval([one.refused / one.arrived for one in sample], level=0.99)
    exact = loss_of_m_d_1_k(load, waiting + 1)
    assert refused.half_width < 0.06 * exact
    assert refused.low < exact < refused.high


def test_a_bound_in_tokens_counts_prompts() -> None:
    """Of alike prompts, one that is a multiple of them bounds the requests."""
    load = workload((1.3 / ITERATION_S, 20, 1))
    by_tokens, by_requests = (
        runs(load, Traffic(queue=bound), ONE_AT_A_TIME, 2, 500)
        for bound in (QueueLimit(prompt_tokens=81), QueueLimit(requests=5))
    )
    assert [one.refused for one in by_tokens] == [one.refused for one in by_requests]
    assert by_tokens[0].refused > 0


def wait_law_of_m_d_1(time_s: float, rate_per_s: float, service_s: float) -> float:
    """(1 − ρ)⁻¹ P(wait ≤ t) of M/D/1 (Erlang 1909), which is finite above capacity too."""
    total = 0.0
    for k in range(int(time_s / service_s) + 1):
        u = rate_per_s * (time_s - k * service_s)
        total += math.exp(u) * (-u) ** k / math.factorial(k)
    return total


@pytest.mark.parametrize("load", [0.8, 1.4])
def test_given_up_share_of_m_d_1_with_constant_patience(load: float) -> None:
    """The work found by an arrival has the law of M/D/1 up to the patience D, rescaled.

    Who finds less than D enters service (De Kok & Tijms 1985); who finds more than D less a service
    enters for nothing.
    """
    rate_per_s, patience_s = load / ITERATION_S, 4.3 * ITERATION_S
    traffic = Traffic(patience=Patience(patience_s, 0))
    sample = runs(workload((rate_per_s, 20, 1)), traffic, ONE_AT_A_TIME, 40, 6_000)
    enters = wait_law_of_m_d_1(patience_s, rate_per_s, ITERATION_S)
    in_time = wait_law_of_m_d_1(patience_s - ITERATION_S, rate_per_s, ITERATION_S)
    scale = 1 / (1 + load * enters)  # 1 − P(idle) = ρ·P(enters)
    gave_up = interval([one.gave_up / one.arrived for one in sample], level=0.99)
    assert gave_up.half_width < 0.06 * gave_up.mean
    assert gave_up.low < 1 - scale * in_time < gave_up.high
    wasted = interval([one.tokens_given_up / one.tokens_computed for one in sample], level=0.99)
    assert wasted.low < 1 - in_time / enters < wasted.high


def test_requests_that_never_fit_are_counted() -> None:
    load = workload((3.0, 20, 4), (1.0, 20_000, 4))
    with pytest.raises(InputError, match="KV tokens at its end"):
        found(load, Traffic(), "greedy", 100)
    one = found(load, Traffic(refuse_too_long=True), "greedy", 4_000)
    assert one.too_long_share == pytest.approx(0.25, abs=0.03)
    assert one.verdict == "stable"
    tape = Tape(np.arange(20.0), np.where(np.arange(20) % 4, 20, 20_000), np.full(20, 4))
    with pytest.raises(InputError, match="row 1 of the tape"):
        tape_model(tape, FIXED)
    traffic = Traffic(job=FiniteJob(), refuse_too_long=True)
    assert compare(tape, FIXED, "greedy", traffic=traffic).results[0].too_long_share == 0.25


@pytest.mark.parametrize("name", ["greedy", "vllm-v1", "wait"])
def test_tokens_and_gaps_add_up(name: str) -> None:
    """Tokens computed are those that had to be and those thrown away; gaps are those of the slow
    reference."""
    recomputed = gaps = 0
    for number in range(1, 240, 6):  # finite jobs
        case = random_traffic_case(name, number)
        policy, server = case.case.policy, case.case.server
        job = cpu.Job(policy, 0, case.case.seed)
        one = cpu.run(case.model, [job], 40)[0]
        trace = cpu.run_traced(case.model, job, 40, one.iterations)
        drawn = Drawn(case)
        requests = drawn.first(trace, 40)
        simulate_slowly(
            requests,
            server,
            REFERENCE_POLICIES[name],
            policy.values,
            policy.thresholds,
            steps=one.iterations,
            cuts=policy.cuts,
            audience=drawn.audience(40),
        )
        between = np.concatenate([np.diff(request.tokens_at_s) for request in requests])
        assert one.gap_count == len(between)
        if len(between):
            assert one.gap_mean_s == pytest.approx(between.mean())
            assert one.gap_max_s == pytest.approx(between.max())
            p90 = np.quantile(between, 0.9, method="inverted_cdf")
            assert one.gap_quantile_s[1] == pytest.approx(p90, rel=0.011)
        if one.completed == 40:
            silent = server.first_token == "decode"
            needed = [
                request.prefill_tokens
                + request.decode_tokens
                - (0 if silent or request.prefill_tokens == 0 else 1)
                for request in requests
            ]
            assert one.tokens_computed == sum(needed) + one.tokens_recomputed
            recomputed += one.tokens_recomputed
        gaps += len(between)
    assert min(recomputed, gaps) > 0


@pytest.mark.parametrize("text", ["geometric", "lognormal:cv=0.4", "lognormal:cv=2"])
@pytest.mark.parametrize("mean", [1, 2, 150])
def test_output_laws_have_their_mean(text: str, mean: int) -> None:
    law = parse_outputs(text)
    lengths, shares = law.lengths(mean, 10**6)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert lengths @ shares == pytest.approx(mean, rel=1e-6)
    variance = float((lengths - mean) ** 2 @ shares)
    if mean == 150 and law.law == "geometric":
        assert variance == pytest.approx(mean * (mean - 1), rel=1e-5)
    if mean == 150 and law.law == "lognormal":
        assert variance == pytest.approx((law.variation * mean) ** 2, rel=1e-2)


@pytest.mark.parametrize("mean", [2, 17, 150])
def test_a_sample_is_stretched_to_the_mean(mean: int, tmp_path: Path) -> None:
    sample = np.random.default_rng(0).lognormal(4.0, 0.4, 500).astype(int) + 40
    path = tmp_path / "lengths.txt"
    path.write_text("\n".join(map(str, sample)))
    lengths, shares = parse_outputs(f"empirical:{path}").lengths(mean, 10**6)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert lengths @ shares == pytest.approx(mean, rel=1e-9)
    variation = np.sqrt((lengths - mean) ** 2 @ shares) / mean
    # A length between two whole ones is either: at most a quarter of a token squared.
    assert variation**2 >= (sample.std() / sample.mean()) ** 2 - 1e-9
    assert variation**2 <= (sample.std() / sample.mean()) ** 2 + 0.25 / mean**2 + 1e-9


def test_an_empty_sample_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InputError, match="empty: lengths: got 'none'"):
        parse_outputs(f"empirical:{tmp_path / 'empty'}")


def test_a_model_knows_its_sample() -> None:
    outputs = Outputs("empirical", sample=(10, 30, 80))
    load = workload((2.0, 20, 40), (1.0, 20, 80))
    model = poisson_model(load, FIXED, traffic=Traffic(outputs=outputs))
    assert model.traffic.label == "empirical outputs"
    found = model.traffic.outputs
    assert found is not None
    assert found.sample == (10, 30, 80)
    assert found.lengths(40, 10**6)[0].tolist() == [10, 30, 80]
    assert sorted(set(model.shapes["output_tokens"].tolist())) == [10, 20, 30, 60, 80, 160]


def test_drawn_outputs_are_reported_under_their_class() -> None:
    """Little's law for what is in service: the mean output times the iteration time."""
    load = workload((2.0, 20, 30), (1.0, 20, 5))
    sample = runs(load, Traffic(outputs=Outputs("geometric")), "greedy", 10, 4_000)
    assert len(sample[0].mean_s) == 3
    for index, mean in enumerate((30, 5)):
        # Whoever comes to a busy server waits half an iteration on average.
        found_s = interval([one.mean_s[index, 0] - one.mean_s[index, 1] for one in sample], 0.99)
        assert found_s.low < (mean - 1) * ITERATION_S < found_s.high
        assert found_s.half_width < 0.1 * found_s.mean
    with pytest.raises(InputError, match=r"cut at the .* tokens that fit"):
        runs(workload((1.0, 20, 5_000)), Traffic(outputs=Outputs()), "greedy", 1, 100)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Clients(0), "clients: got 0"),
        (lambda: Clients(2, -1.0), "think_s: got -1.0"),
        (lambda: Clients(2, 1.0, "normal"), "think_law: got 'normal'"),
        (lambda: Clients(2, 0.0, "exponential"), "think_s: got 0"),
        (lambda: QueueLimit(), "queue_requests: got 'none'"),
        (lambda: QueueLimit(0), "queue_requests: got 0"),
        (lambda: QueueLimit(None, 0), "queue_tokens: got 0"),
        (lambda: Patience(0.0), "mean_s: got 0.0"),
        (lambda: Patience(1.0, -1), "variation: got -1"),
        (lambda: Outputs("uniform"), "outputs: got 'uniform'"),
        (lambda: parse_outputs("geometric:cv=2"), "outputs: got 'geometric:cv=2'"),
        (lambda: parse_outputs("lognormal:cv=x"), "outputs: cv: got 'x'"),
        (lambda: parse_outputs("empirical:no-such-file"), "no-such-file: got 'no such file'"),
        (lambda: parse_outputs(f"empirical:{__file__}"), 'length 1: got \'"""Closed'),
        (lambda: Outputs("empirical"), "sample: got '0 lengths'"),
        (lambda: Outputs("geometric", sample=(3,)), "sample: got '1 lengths'"),
        (lambda: Outputs("empirical", sample=(3, 0)), "sample: got 0"),
        (lambda: Outputs("empirical", sample=(3,), shares=(0.5, 0.5)), "shares: got '2 shares'"),
        (lambda: Outputs("empirical", sample=(1, 10**6)).lengths(2, 10**7), "stretched"),
        (lambda: Traffic(clients=Clients(2), queue=QueueLimit(1)), "think_s: got 0"),
        (lambda: Traffic(clients=Clients(2), job=FiniteJob(True)), "job: got 'at-once'"),
    ],
)
def test_what_makes_no_sense_is_refused(make: object, told: str) -> None:
    with pytest.raises(InputError, match=told):
        make()  # type: ignore[operator]


def test_what_needs_a_rate_is_refused() -> None:
    load, loop = workload((1.0, 20, 4)), Traffic(clients=Clients(2))
    with pytest.raises(InputError, match=r"rate_per_s: got 3\.0; allowed: none"):
        compare(load, FIXED, "greedy", rates=[3.0], traffic=loop)
    with pytest.raises(InputError, match="arrivals: got 'gamma:cv=2'"):
        compare(load, FIXED, "greedy", arrivals="gamma:cv=2", traffic=loop)
    with pytest.raises(InputError, match="find_capacity: got True"):
        compare(load, FIXED, "greedy", find_capacity=True, traffic=loop)
    with pytest.raises(InputError, match="requests: got 19; allowed: at least 10 for each client"):
        compare(load, FIXED, "greedy", traffic=loop, runs=Runs(1, 19))
    with pytest.raises(InputError, match="plot: got 'clients or a job'"):
        compare(load, FIXED, "greedy", traffic=loop, runs=Runs(1, 40)).plot()
