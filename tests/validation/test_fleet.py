"""Several servers behind a router: against a slow fleet, one server, and a thinned law."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

import fluidwait as fw
from fluid.errors import InputError
from fluid.statistics import half_width
from fluid.workload import Workload
from tests.support.agreement import REQUESTS, reference_requests, simulate_reference
from tests.support.random_cases import Case, crowded_case, random_case
from validation.policies import ConfiguredPolicy, configured
from validation.reference import REFERENCE_POLICIES, Request, simulate_slowly
from validation.reference.fleet import simulate_fleet_slowly, tokens_of
from validation.simulator.compiling import kernel
from validation.simulator.cpu import Job, run, run_reading
from validation.simulator.fleet import as_one, run_fleets
from validation.simulator.metrics import Replication, collect, verdict
from validation.simulator.model import Model, model_of, poisson_model

# mypy: disable-error-code="no-untyped-def"

SERVER = fw.Server.named("engine-long-decode")

TWO = fw.Workload.of(chat=fw.Requests(20.0, 512, 50), code=fw.Requests(5.0, 100, 20))


@kernel
def in_turn(behind, number):
    """Router: to all servers one after another."""
    return number % behind.size


def policy_of(text: str) -> ConfiguredPolicy:
    (found,) = configured(text)
    return found


@pytest.mark.parametrize("name", ["greedy", "vllm-v1", "wait"])
@pytest.mark.parametrize("make", [random_case, crowded_case])
def test_a_fleet_agrees_with_the_slow_one(name: str, make) -> None:
    """Request by request: where it is sent, its first token and its end."""
    chosen = [len(set(compared(make(name, number), 2 + number % 3))) for number in range(20)]
    assert np.mean(chosen) > 2


def compared(case: Case, servers: int) -> list[int]:
    """Assert agreement at so many times the rate; returns the servers of the slow fleet."""
    model = poisson_model(case.workload, case.server, case.arrivals)
    job = Job(case.policy, 0, case.seed, float(servers))
    ((rows, sent, end),) = run_fleets(
        model,
        [job],
        servers,
        REQUESTS,
        lambda fleet: (
            fleet.lanes.requests.copy(),
            fleet.sent["server"].copy(),
            int(fleet.lanes.scalars[0, 0]["cohort_end"]),
        ),
    )
    kinds = model.shapes["report_class"][rows["shape"]]
    requests = reference_requests(case, rows["arrived_at_s"], kinds)

    def simulate(own: list[Request]) -> None:
        # Literal WAIT may evict and admit for ever.
        simulate_reference(case, own, steps=3_000)

    chosen = simulate_fleet_slowly(requests, servers, simulate)
    done = np.isfinite(rows["completed_at_s"])
    ended = [np.isfinite(one.completed_at_s) for one in requests[:end]]
    assert done[:end].tolist() == ended
    assert sent[:end].tolist() == chosen[:end]
    for name in ("first_token_at_s", "completed_at_s"):
        expected = np.array([getattr(one, name) for one in requests])
        np.testing.assert_allclose(rows[name][done], expected[done], rtol=1e-10)
    return chosen


def test_the_slow_fleet_sends_to_the_fewest_tokens_and_the_first_of_several() -> None:
    """Each takes as long as it has output tokens: by hand."""
    tau = fw.IterationTime.affine(1.0)
    server = fw.Server(name="s", source="test", kv_capacity_tokens=1_000, iteration_time=tau)

    def simulate(own: list[Request]) -> None:
        simulate_slowly(own, server, REFERENCE_POLICIES["greedy"], {})

    arrivals = [(0.0, 10, 5), (0.5, 2, 3), (1.0, 2, 3), (3.5, 4, 4), (5.5, 1, 1)]
    requests = [Request(n, at, 0, prompt, 0, out) for n, (at, prompt, out) in enumerate(arrivals)]
    # To 0 (of 0, 0), 1 (of 15, 0), 1 (of 15, 5); at 3.5 s the first of server 1, which ends after
    # its first token at 1.5 s with 3.5 s, is just over: 1 (of 15, 5). At 5.5 s server 0 is empty.
    assert simulate_fleet_slowly(requests, 2, simulate) == [0, 1, 1, 1, 0]
    assert requests[1].completed_at_s == 3.5
    assert requests[0].completed_at_s == 5.0
    assert tokens_of(requests[3]) == 8


@pytest.mark.parametrize("text", ["greedy", "vllm-v1", "vllm-v1:async_scheduling=1", "wait-cap"])
def test_one_server_is_the_plain_simulation(text: str) -> None:
    policy = policy_of(text) if text != "wait-cap" else fw.policy_of(fw.solve(TWO, SERVER))
    model = model_of(TWO, SERVER)
    jobs = [Job(policy, number) for number in range(2)]
    plain = run_reading(model, jobs, 2_000, lambda lane: (lane.requests.copy(), collect(lane)))
    alone = run_fleets(
        model, jobs, 1, 2_000, lambda one: (one.lanes.requests.copy(), collect(as_one(one)))
    )
    for (rows, found), (own_rows, own) in zip(plain, alone, strict=True):
        for name in ("arrived_at_s", "first_token_at_s", "completed_at_s", "evictions", "shape"):
            np.testing.assert_array_equal(rows[name], own_rows[name])
        for field in fields(Replication):
            if field.name != "path":  # It is sampled at arrivals here, at decisions there.
                before = getattr(found, field.name)
                np.testing.assert_array_equal(before, getattr(own, field.name), field.name)


def test_nothing_of_a_run_is_left_in_the_memory_of_the_next_one() -> None:
    model = model_of(TWO.at_rate(60.0), SERVER)
    jobs = [Job(policy_of("vllm-v1"), number) for number in (0, 1, 0)]
    first, other, again = run_fleets(
        model,
        jobs,
        3,
        1_000,
        lambda one: (one.lanes.requests["completed_at_s"].copy(), collect(as_one(one))),
        threads=1,
    )
    np.testing.assert_array_equal(first[0], again[0])
    for field in fields(Replication):
        before, after = (getattr(one[1], field.name) for one in (first, again))
        np.testing.assert_array_equal(before, after, field.name)
    assert not np.array_equal(first[0], other[0])


def replications(model: Model, text: str, servers: int, each: int, **options) -> list[Replication]:
    """Twenty, of so many requests for each server."""
    jobs = [Job(policy_of(text), number) for number in range(20)]
    requests = each * servers
    return run_fleets(model, jobs, servers, requests, lambda one: collect(as_one(one)), **options)


@pytest.mark.parametrize("text", ["greedy", "vllm-v1"])
def test_servers_in_turn_see_the_thinned_law(text: str) -> None:
    """Every n-th request of a Poisson stream: gamma gaps of variation 1/√n. 99.9 % intervals."""
    servers = 4
    load = TWO.at_rate(servers * 20.0)
    together = replications(model_of(load, SERVER), text, servers, 1_000, router=in_turn)
    thinned = run(
        model_of(load, SERVER, f"gamma:cv={servers**-0.5}"),
        [Job(policy_of(text), number, 7, 1 / servers) for number in range(20)],
        4_000,
    )
    for metric in range(3):
        one = np.array([found.mean_s[-1, metric] for found in together])
        other = np.array([found.mean_s[-1, metric] for found in thinned])
        error = np.hypot(half_width(one, 0.999), half_width(other, 0.999))
        assert abs(one.mean() - other.mean()) < error
        assert error < 0.1 * other.mean()


def test_a_fleet_as_one_counts_what_its_requests_met() -> None:
    model = model_of(TWO.at_rate(60.0), SERVER)
    ((rows, found),) = run_fleets(
        model,
        [Job(policy_of("vllm-v1"), 0)],
        3,
        3_000,
        lambda one: (one.lanes.requests.copy(), collect(as_one(one))),
    )
    own = rows[600:2_400]
    latency_s = own["completed_at_s"] - own["arrived_at_s"]
    assert found.unfinished == 0
    assert found.count[-1].tolist() == [1_800] * 3
    assert found.mean_s[-1, 0] == pytest.approx(latency_s.mean())
    kinds = model.shapes["report_class"][own["shape"]]
    assert found.count[:, 0].tolist() == [*np.bincount(kinds), 1_800]
    completed_s = rows["completed_at_s"]
    begin_s, end_s = rows["arrived_at_s"][[600, 2_400]]
    assert found.completed == ((begin_s < completed_s) & (completed_s <= end_s)).sum()
    arrived, clock_s, in_system = found.path[:, :3].T
    for number, at_s, present in zip(arrived.astype(int), clock_s, in_system, strict=True):
        next_s = rows["arrived_at_s"][number]
        assert next_s <= at_s < next_s + 0.2
        there = ~(completed_s[:number] <= next_s)
        late = there & (completed_s[:number] <= at_s + 0.2)
        assert there.sum() - late.sum() <= present <= there.sum()


def test_the_backlog_of_a_fleet_is_judged() -> None:
    """Ten percent below the limit of all its servers, and above it."""
    servers = 3
    limit_per_s = servers * fw.capacity(TWO, SERVER, "rate").value
    for factor, word in ((0.9, "stable"), (1.1, "unstable")):
        load = TWO.at_rate(factor * limit_per_s)
        found = replications(model_of(load, SERVER), "greedy", servers, 4_000)
        assert verdict(found).word == word


def test_what_lanes_that_share_requests_cannot_do_is_refused() -> None:
    model = model_of(TWO, SERVER)
    with pytest.raises(InputError, match="one without a cache of prefixes"):
        run_fleets(model, [Job(policy_of("vllm-v1:prefix_caching=1"), 0)], 2, 100, as_one)
    conversation = fw.Conversation(turns=5.0, think_time_s=20.0, new_tokens=200)
    talk = fw.RequestClass(name="talk", rate_per_s=2.0, decode_tokens=50, conversation=conversation)
    follows = model_of(Workload(name="talk", classes=(talk,)), SERVER)
    with pytest.raises(InputError, match="requests that neither follow each other"):
        run_fleets(follows, [Job(policy_of("greedy"), 0)], 2, 100, as_one)
