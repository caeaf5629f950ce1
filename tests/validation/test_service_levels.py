"""Service levels in simulation: shares against every request, roots against exact queues."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.optimize import brentq

import fluidwait as fw
from fluid.errors import InfeasibleError, InputError
from fluid.service_levels import promises
from fluid.workload import LIMITS, Slo, Workload
from validation.experiments.boundary_search import Budget
from validation.experiments.slo.attained import attained, criteria
from validation.experiments.slo.levels import (
    Kept,
    judged,
    least_requests,
    levels_of,
    share_interval,
    together,
)
from validation.experiments.slo.search import RootSearch
from validation.experiments.slo.servers import ROUTERS
from validation.policies import configured
from validation.simulator.cpu import Job, run_traced
from validation.simulator.model import model_of
from validation.simulator.runs import Runs

ITERATION_S = 0.01
FIXED = fw.Server(
    name="fixed",
    source="test",
    kv_capacity_tokens=10_000,
    iteration_time=fw.IterationTime.affine(ITERATION_S),
)
"""Every iteration takes 10 ms: with one seat and one output, M/D/1."""

GPU = fw.Server.named("engine-long-decode")


def two_classes() -> Workload:
    own = Slo(ttft_s=0.12, tpot_s=0.045, latency_s=3.0, quantile=0.9)
    load = fw.Workload.of(
        chat=fw.Requests(9.0, 256, 60, slo=own),
        code=fw.Requests(3.0, 900, 20),
        note=fw.Requests(2.0, 64, 1),
    )
    return load.model_copy(update={"slo": Slo(ttft_s=0.2, latency_s=0.9, quantile=0.95)})


def test_shares_are_those_of_the_requests_one_by_one() -> None:
    """What kernels count, and what is read of the requests, against every request of the runs.

    The queue is bounded, so that who is refused counts as missed.
    """
    load, runs = two_classes(), Runs(3, 900)
    traffic = fw.Traffic(queue=fw.QueueLimit(requests=6))
    model = model_of(load, GPU, traffic=traffic)
    (policy,) = configured("greedy:cap=40")
    found = attained(model, policy, promises(load), 26.0, runs, 1.1)
    counted = levels_of(model, found.replications, False)
    within: dict[tuple[int, str], list[float]] = {}
    for number in range(runs.replications):
        trace = run_traced(model, Job(policy, number, runs.seed, model.rate_scale(26.0)), 900)
        window = slice(int(0.2 * 900), int(0.8 * 900))
        outputs = model.shapes["output_tokens"][trace.shape_index]
        first_s = trace.first_token_at_s - trace.arrived_at_s
        latency_s = trace.completed_at_s - trace.arrived_at_s
        tpot_s = (latency_s - first_s) / np.maximum(outputs - 1, 1)
        times = dict(
            zip(LIMITS, (first_s, np.where(outputs > 1, tpot_s, 0.0), latency_s), strict=False)
        )
        for place, promise in enumerate(promises(load)):
            own = np.isin(trace.class_index[window], promise.classes)
            met = {
                name: times[name][window][own] <= limit_s
                for name, limit_s in promise.slo.limits_s.items()
            }
            met["all"] = np.logical_and.reduce(list(met.values()))
            for name, one in met.items():
                within.setdefault((place, name), []).append(float(one.mean()))
    expected = {key: float(np.mean(value)) for key, value in within.items()}
    names = {"0": 0, "all": 1}
    assert {(names[one.name], one.limit): one.share for one in counted} == pytest.approx(expected)
    for (place, name), share in expected.items():
        limit = None if name == "all" else name
        assert found.share(place, limit).mean == pytest.approx(share)
    assert min(expected.values()) < 0.9 < max(expected.values())
    assert any(one.refused for one in found.replications)


def test_a_relaxed_limit_is_that_limit_in_the_workload() -> None:
    """Limits change nothing else, so that a run answers for others too."""
    load, runs = two_classes(), Runs(2, 900)
    (policy,) = configured("greedy:cap=40")
    found = attained(model_of(load, GPU), policy, promises(load), 17.0, runs, 1.1)
    chat = load.classes[0]
    assert chat.slo is not None
    eased = chat.slo.model_copy(update={"ttft_s": 1.1 * 0.12})
    classes = (chat.model_copy(update={"slo": eased}), *load.classes[1:])
    other = load.model_copy(update={"classes": classes})
    again = attained(model_of(other, GPU), policy, promises(other), 17.0, runs, 1.1)
    assert again.share(0).mean == found.share(0, relaxed="ttft_s").mean > found.share(0).mean
    assert again.share(1).mean == found.share(1).mean


def test_verdicts_follow_from_intervals() -> None:
    assert [judged(0.0, 0.1), judged(-0.2, -0.1), judged(-0.1, 0.1)] == [
        "kept",
        "broken",
        "undecided",
    ]
    assert together(["kept", "kept"]) == "kept"
    assert together(["kept", "undecided"]) == "undecided"
    assert together(["kept", "undecided", "broken"]) == "broken"


def test_intervals_of_shares_hold_the_share() -> None:
    """95 % of them do, where misses are rare and runs are few; none is of width 0."""
    generator, share, size = np.random.default_rng(1), 0.99, 200
    held = 0
    for _ in range(400):
        found = share_interval(generator.binomial(size, share, 5) * 1.0, np.full(5, size * 1.0))
        assert found.half_width > 0
        held += found.low <= share <= found.high
    assert held / 400 > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400)


@dataclass(frozen=True)
class Noisy:
    """Excess of a straight line in the logarithm of the rate, with noise as of so many requests."""

    worst: float
    spread: float

    @property
    def kept(self) -> Kept:
        return judged(-self.worst - self.spread, -self.worst + self.spread)


ROOT, SLOPE = 7.3, 6.0


def noisy(seed: int, noise: float = 20.0, bias: float = 0.0) -> RootSearch:
    """A search whose common noise shrinks with the requests, and a bias of short runs too."""

    def measure(rate_per_s: float, runs: Runs) -> Noisy:
        size = runs.replications * runs.requests
        spread = noise / math.sqrt(size)
        shared = np.random.default_rng((seed, size)).normal() * spread / 1.96
        worst = SLOPE * math.log(rate_per_s / ROOT) + shared - bias / runs.requests
        return Noisy(worst, spread)

    return RootSearch(measure, Runs(20, 1_000), 10.0, 0.01, Budget(1_000, seconds=1e9))


def test_a_root_lies_in_its_bracket_as_often_as_is_said() -> None:
    inside = 0
    for seed in range(100):
        found = noisy(seed).find(4.0)
        assert found.decided
        assert found.rate_per_s is not None
        assert found.low_per_s
        assert found.high_per_s
        assert found.high_per_s <= 1.01 * found.rate_per_s
        assert found.low_per_s >= 0.99 * found.rate_per_s
        inside += found.low_per_s <= ROOT <= found.high_per_s
    assert inside >= 92


def test_runs_are_lengthened_until_their_length_does_not_matter() -> None:
    """A root that moves with the length is not believed, however narrow its interval."""
    found = noisy(0, noise=0.01, bias=2_000.0).find(7.0)
    assert found.rate_per_s == pytest.approx(ROOT, rel=0.01)
    assert found.runs.requests > 20_000


def test_a_budget_that_ends_leaves_a_bracket_that_says_so() -> None:
    search = noisy(3, noise=200.0)
    ended = RootSearch(search._measure, search.runs, 10.0, 0.01, Budget(1_000, seconds=-1.0))
    found = ended.find(7.0)
    assert not found.decided
    assert found.rate_per_s is not None
    low, high = found.low_per_s or 0.0, found.high_per_s or 10.0
    assert low < 0.99 * found.rate_per_s < 1.01 * found.rate_per_s < high


@pytest.mark.parametrize("start_per_s", [0.01, 7.3, 9.9])
def test_any_start_finds_the_root(start_per_s: float) -> None:
    found = noisy(5, noise=1.0).find(start_per_s)
    assert found.rate_per_s == pytest.approx(ROOT, rel=0.01)


def test_what_is_kept_nowhere_has_no_root() -> None:
    search = RootSearch(
        lambda rate_per_s, runs: Noisy(1.0, 0.1), Runs(2, 10), 10.0, 0.01, Budget(10, seconds=1e9)
    )
    assert search.find(5.0).rate_per_s is None


def waits_within(time_s: float, rate_per_s: float) -> float:
    """P(wait ≤ t) of M/D/1 (Erlang 1909)."""
    total = 0.0
    for k in range(int(time_s / ITERATION_S + 1e-9) + 1):
        u = rate_per_s * (time_s - k * ITERATION_S)
        total += math.exp(u) * (-u) ** k / math.factorial(k)
    return (1 - rate_per_s * ITERATION_S) * total


def test_the_rate_of_m_d_1_is_the_exact_one() -> None:
    """The p99 takes minutes: `python -m tests.benchmarks.service_levels --case m-d-1`."""
    wait_s, quantile = 0.033, 0.85
    slo = Slo(ttft_s=wait_s + ITERATION_S, quantile=quantile)
    load = fw.Workload.of(a=fw.Requests(50.0, prompt=20, output=1, slo=slo))
    found = fw.slo_rate(load, FIXED, "greedy:cap=1", tolerance=0.02, budget_s=1e6)
    exact = brentq(lambda rate: waits_within(wait_s, rate) - quantile, 1.0, 99.0)
    assert found.decided
    assert found.rate_per_s == pytest.approx(exact, rel=0.01)
    assert found.low_per_s is not None
    assert found.high_per_s is not None
    assert found.low_per_s < exact < found.high_per_s
    assert (found.binding, found.binding_limit) == ("a", "ttft_s")
    (eased,) = found.relaxed
    longer_s = 1.1 * (wait_s + ITERATION_S) - ITERATION_S
    more = brentq(lambda rate: waits_within(longer_s, rate) - quantile, 1.0, 99.0)
    assert eased.gain == pytest.approx(more / exact - 1, abs=0.01)


def in_system_of_m_m_1_k(load: float, places: int) -> float:
    """Mean number in M/M/1/K over what is admitted per service."""
    weights = load ** np.arange(places + 1)
    law = weights / weights.sum()
    return float(np.arange(places + 1) @ law / (load * (1 - law[-1])))


def test_servers_are_those_of_m_m_1_k() -> None:
    """One seat and geometric outputs are nearly M/M/1: latency T/(1 − ρ), places enough."""
    outputs, asked_s = 40, 1.2
    service_s = outputs * ITERATION_S
    slo = Slo(latency_s=asked_s, quantile="mean")
    load = fw.Workload.of(a=fw.Requests(12.0, prompt=20, output=outputs, slo=slo))
    traffic = fw.Traffic(outputs=fw.Outputs("geometric"))
    found = fw.slo_servers(load, FIXED, "greedy:cap=1", traffic=traffic, runs=Runs(20, 1_000))
    needed = 1
    while in_system_of_m_m_1_k(12.0 / needed * service_s, 400) * service_s > asked_s:
        needed += 1
    assert found.servers == needed
    assert found.decided


def test_routers_that_know_more_need_no_more_servers_than_at_random() -> None:
    slo = Slo(ttft_s=0.02, quantile=0.9)
    load = fw.Workload.of(a=fw.Requests(400.0, prompt=20, output=1, slo=slo))
    at_random, in_turn, to_the_fewest = (
        fw.slo_servers(load, FIXED, "greedy:cap=1", router=router, runs=Runs(20, 1_000)).servers
        for router in ROUTERS
    )
    # Exact for M/D/1: P(wait ≤ one service) = (1 − ρ)e^ρ.
    needed = next(n for n in range(4, 100) if waits_within(ITERATION_S, 400.0 / n) >= 0.9)
    assert at_random == needed
    assert 4 < to_the_fewest <= in_turn < at_random


def test_above_capacity_the_pace_keeps_the_limit_and_the_fluid_limit_the_refusals() -> None:
    """THEORY 12.1: 1 − μ/λ are refused, and who is admitted is served in time."""
    slo = Slo(ttft_s=5.0)
    load = fw.Workload.of(chat=fw.Requests(14.0, prompt=512, output=120, slo=slo))
    table = fw.solve(load, GPU)
    runs = Runs(3, 6_000)
    found = fw.overload_curve(load, GPU, fw.policy_of(table), multiples=[1.5], runs=runs)
    bounded, unbounded = found.rows
    limit_per_s = fw.capacity(load, GPU, "rate").value
    assert bounded.refused_share == pytest.approx(1 - limit_per_s / bounded.rate_per_s, rel=0.01)
    assert found.kept
    assert bounded.ttft_s == pytest.approx(5.0, rel=0.03)
    assert bounded.goodput_per_s == pytest.approx(found.capacity_per_s, rel=0.02)
    assert unbounded.ttft_s > 10 * bounded.ttft_s
    assert unbounded.goodput_per_s < 0.1 * bounded.goodput_per_s
    # Alike requests without a pace are admitted in bursts: the answer says that it is not kept.
    bursts = fw.overload_curve(load, GPU, "greedy", multiples=[1.5], runs=runs)
    assert not bursts.kept
    assert bursts.sentence.startswith("NOT kept under greedy")


def test_a_bound_in_prompt_tokens_keeps_the_limit_too() -> None:
    slo = Slo(ttft_s=4.0)
    load = fw.Workload.of(
        short=fw.Requests(7.0, 256, 100, slo=slo), long=fw.Requests(3.0, 1024, 100, slo=slo)
    )
    table = fw.solve(load, GPU)
    queue = fw.queue_for_limit(load, GPU)
    traffic = fw.Traffic(queue=fw.QueueLimit(prompt_tokens=queue.prompt_tokens))
    model = model_of(load, GPU, traffic=traffic)
    found = attained(
        model, fw.policy_of(table), promises(load), 3 * queue.saturated_per_s, Runs(3, 6_000), 1.0
    )
    worst_s = max(found.quantile_s(place, "ttft_s") for place in (0, 1))
    assert worst_s == pytest.approx(4.0, rel=0.02)


def chat(**limits: float | str) -> Workload:
    return fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=50, slo=Slo(**limits)))  # type: ignore[arg-type]


def test_a_limit_below_an_iteration_says_what_is_possible() -> None:
    alone_s = float(GPU.iteration_time(512))
    with pytest.raises(InfeasibleError, match=f"the least possible is {alone_s:.4g} s, alone"):
        fw.slo_rate(chat(ttft_s=0.9 * alone_s), GPU, "greedy")
    with pytest.raises(InfeasibleError, match="TPOT of chat within"):
        fw.slo_servers(chat(tpot_s=0.001), GPU, "greedy")
    # What is possible alone may be kept by no share of requests that others join.
    both = fw.Workload.of(a=fw.Requests(1.0, 512, 50), b=fw.Requests(1.0, 4_000, 50)).model_copy(
        update={"slo": Slo(ttft_s=1.01 * alone_s)}
    )
    with pytest.raises(InfeasibleError, match=r"at no rate.*at next to no load its p99 is"):
        fw.slo_rate(both, GPU, "greedy", runs=Runs(4, 300))


def with_rare(quantile: float | str) -> Workload:
    """One request in five thousand is of a class with levels of its own."""
    slo = Slo(ttft_s=1.0, quantile=quantile)
    return fw.Workload.of(
        chat=fw.Requests(5.0, 512, 50, slo=Slo(ttft_s=1.0)), rare=fw.Requests(0.001, 1, 1, slo=slo)
    )


@pytest.mark.parametrize(
    "load",
    [with_rare(0.99), with_rare("mean"), chat(ttft_s=1.0, quantile=0.999999)],
    ids=["rare", "mean of a rare one", "high quantile"],
)
def test_requests_too_few_to_miss_leave_the_promise_open_and_are_no_miss(load: Workload) -> None:
    found = fw.slo_rate(load, GPU, "greedy", runs=Runs(4, 600), budget_s=1e-3)
    assert 0.5 * found.limit_per_s < found.rate_per_s < found.limit_per_s
    assert not found.decided
    assert found.low_per_s is None
    assert found.high_per_s is not None


def test_servers_that_no_run_can_decide_say_how_many_requests_it_takes() -> None:
    """All of n within a limit show a share of q from n = z²q/(1 − q) on (Wilson)."""
    for load, told in (
        (with_rare(0.99), r"p99 of rare takes 381 requests that keep it, and \d came"),
        (chat(ttft_s=1.0, quantile=0.9999), "p99.99 of chat takes 38,411 requests .* 1,440 came"),
    ):
        with pytest.raises(InfeasibleError, match=told):
            fw.slo_servers(load, GPU, "greedy", runs=Runs(4, 600), budget_s=1e-3)
    for quantile in (0.5, 0.99, 0.9999):
        needed = float(least_requests(quantile))
        at, before = (share_interval(*2 * (np.array([n]),)).low for n in (needed, needed - 1))
        assert before < quantile <= at


def test_a_limit_that_nobody_can_miss_leaves_stability_to_bind() -> None:
    """Requests with one output have no time between tokens."""
    slo = Slo(tpot_s=0.05)
    load = fw.Workload.of(chat=fw.Requests(5.0, 512, 1, slo=slo))
    found = fw.slo_rate(load, GPU, "greedy", runs=Runs(20, 2_500), budget_s=5.0)
    assert 0.95 * found.limit_per_s < found.rate_per_s < found.limit_per_s
    assert (found.binding, found.binding_limit) == ("stability", "stability")


def test_who_is_never_served_misses_every_limit() -> None:
    """Literal WAIT holds a class until more have come than a run has."""
    for slo in (Slo(latency_s=20.0, quantile="mean"), Slo(ttft_s=1.0)):
        load = fw.Workload.of(
            chat=fw.Requests(5.0, 512, 50, slo=Slo(ttft_s=1.0)),
            held=fw.Requests(1.0, 512, 50, slo=slo),
        )
        with pytest.raises(InfeasibleError, match=r"at no rate.*of held; .* is \d"):
            fw.slo_rate(load, GPU, "wait:thresholds=5/4000", runs=Runs(4, 600))
        model = model_of(load, GPU)
        found = attained(
            model, *configured("wait:thresholds=5/4000"), promises(load), 2.0, Runs(4, 600), 1.0
        )
        assert found.arrived(1) > 200
        assert found.share(1).mean == 0.0
        assert found.verdict(criteria(promises(load))[1]) == "broken"


def test_questions_that_make_no_sense_are_refused() -> None:
    plain = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=50))
    for ask in (fw.slo_rate, fw.slo_servers):
        with pytest.raises(InputError, match="slo: got None"):
            ask(plain, GPU, "greedy")
        with pytest.raises(InputError, match="KV tokens at its end"):
            ask(fw.Workload.of(a=fw.Requests(1.0, 200_000, 50, slo=Slo(ttft_s=1.0))), GPU, "greedy")
        with pytest.raises(InputError, match=r"traffic: .*bounds the backlog"):
            ask(chat(ttft_s=1.0), GPU, traffic=fw.Traffic(queue=fw.QueueLimit(requests=3)))
        with pytest.raises(InputError, match="budget_s"):
            ask(chat(ttft_s=1.0), GPU, budget_s=0.0)
        none = fw.Workload.of(a=fw.Requests(1.0, 512, 1, slo=Slo(tpot_s=1.0, quantile="mean")))
        with pytest.raises(InputError, match=r"slo of a: tpot_s: .*no time between tokens"):
            ask(none, GPU)
    with pytest.raises(InputError, match="tolerance"):
        fw.slo_rate(chat(ttft_s=1.0), GPU, tolerance=0.5)
    every = "one of random, round-robin, least-outstanding-tokens"
    with pytest.raises(InputError, match=f"router: got 'best'; allowed: {every}"):
        fw.slo_servers(chat(ttft_s=1.0), GPU, router="best")
    with pytest.raises(InputError, match="did you mean least-outstanding-tokens"):
        fw.slo_servers(chat(ttft_s=1.0), GPU, router="least-outstanding")
    with pytest.raises(InputError, match=r"requests: got 900000; .* 3 servers that a router looks"):
        fw.slo_servers(
            chat(ttft_s=1.0).at_rate(40.0),
            GPU,
            "greedy",
            router="least-outstanding-tokens",
            runs=Runs(2, 900_000),
        )
    with pytest.raises(InputError, match="a limit of TTFT"):
        fw.queue_for_limit(chat(tpot_s=1.0), GPU)
    with pytest.raises(InfeasibleError, match="nobody may wait"):
        fw.queue_for_limit(chat(ttft_s=0.05), GPU)
    with pytest.raises(InputError, match="multiples"):
        fw.overload_curve(chat(ttft_s=1.0), GPU, multiples=[])


def test_levels_of_a_comparison_are_named_and_judged() -> None:
    load = two_classes()
    found = fw.compare(load, GPU, "greedy:cap=40", rates=[6.0, 60.0], runs=Runs(4, 600))
    calm, busy = found.results
    assert {one.name for one in calm.levels} == {"chat", "all"}
    assert [one.limit for one in calm.levels if one.name == "chat"] == [*LIMITS, "all"]
    assert busy.verdict == "unstable"
    assert {one.verdict for one in busy.levels if one.limit != "tpot_s"} == {"broken"}
    ttft = calm.levels[0]
    assert ttft.mean_s is not None
    assert ttft.p99_s is not None
    assert ttft.mean_s < ttft.p99_s
    means = load.model_copy(
        update={"slo": None, "classes": tuple(_on_mean(one) for one in load.classes)}
    )
    one = fw.compare(means, GPU, "greedy:cap=40", rates=[6.0], runs=Runs(4, 600)).results[0]
    assert [level.verdict for level in one.levels if level.limit == "latency_s"] == ["kept"]
    assert one.levels[0].share is None
    assert "Service levels" in str(found)


def _on_mean(one: fw.RequestClass) -> fw.RequestClass:
    slo = one.slo and one.slo.model_copy(update={"quantile": "mean"})
    return one.model_copy(update={"slo": slo})
