"""Arrival processes against their theory, inside stated intervals over replications."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import Workload
from tests.support.traffic_cases import RULES
from thresholds.solvers.paced.solver import Paced
from validation.policies import POLICIES, parse_policy
from validation.simulator import cpu
from validation.simulator.arrivals import KINDS, gamma_of_mean_one, parse_arrivals
from validation.simulator.metrics import interval
from validation.simulator.model import Model, poisson_model
from validation.simulator.rng import PURPOSE_ARRIVAL, two_uniforms
from validation.simulator.start import start
from validation.simulator.state import new_lane

RATE = 4.0
EXAMPLES = ("poisson", "gamma:cv=2", "deterministic", "mmpp:ratio=5,mean_s=30", "poisson-clipped")

SERVER = Server(
    name="fast",
    source="test",
    kv_capacity_tokens=10_000,
    iteration_time=IterationTime.affine(0.01),
)


def mix(**changes: object) -> Workload:
    """Two classes in the ratio 3 : 1, RATE per second together."""
    classes = [
        {"name": "a", "rate_per_s": 0.75 * RATE, "prefill_tokens": 10, "decode_tokens": 5},
        {"name": "b", "rate_per_s": 0.25 * RATE, "prefill_tokens": 20, "decode_tokens": 2},
    ]
    return Workload.from_document({"name": "mix", "classes": classes} | changes)


def model_of(text: str, **changes: object) -> Model:
    return poisson_model(mix(**changes), SERVER, parse_arrivals(text))


def laid_out(
    model: Model, replication: int, requests: int, seed: int = 0, rate_scale: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Times and shapes of one replication."""
    lane = new_lane(model, requests)
    start(model, lane, seed, replication, rate_scale)
    return lane.requests["arrived_at_s"], lane.requests["shape"]


def gaps_of(text: str, replications: int = 40, requests: int = 2500) -> NDArray[np.float64]:
    """Gaps, shape (replications, requests)."""
    model = model_of(text)
    times = [laid_out(model, k, requests, seed=11)[0] for k in range(replications)]
    return np.diff(times, axis=1, prepend=0.0)


def counts_of(model: Model, edges: NDArray[np.float64], replications: int) -> NDArray[np.int64]:
    """Arrivals between the edges, shape (replications, len(edges) − 1)."""
    requests = int(6 * RATE * edges[-1])
    found = [laid_out(model, k, requests, seed=5)[0] for k in range(replications)]
    assert all(times[-1] > edges[-1] for times in found)
    return np.array([np.histogram(times, edges)[0] for times in found])


def contains(values: NDArray[np.float64], expected: float, looks: int = 1) -> None:
    """The interval over replications, 99 % for all `looks` together, covers the theory."""
    found = interval(values, level=1 - 0.01 / looks)
    assert found.low <= expected <= found.high, (found, expected)
    assert found.half_width < 0.2 * abs(expected)


def test_every_kind_has_an_example_here() -> None:
    assert {text.partition(":")[0] for text in EXAMPLES} == set(KINDS)


@pytest.mark.parametrize(
    ("text", "cv"),
    [("poisson", 1.0), *((f"gamma:cv={cv}", cv) for cv in (0.3, 0.9, 1.0, 1.1, 2.0, 3.0))],
)
def test_renewal_gaps_have_their_mean_and_variation(text: str, cv: float) -> None:
    gaps = gaps_of(text) * RATE
    contains(gaps.mean(axis=1), 1.0)
    contains(((gaps - 1.0) ** 2).mean(axis=1), cv**2)


@pytest.mark.parametrize("cv", [0.3, 0.9, 1.0, 1.1, 2.0, 5.0])
def test_gamma_gaps_have_their_law(cv: float) -> None:
    """Taken before they are summed up: at cv = 5 most gaps are below the resolution of a clock."""
    purposes = np.uint64(16), np.uint64(17)
    uniforms = [two_uniforms(3, 1, number, PURPOSE_ARRIVAL)[0] for number in range(10_000)]
    gaps = [
        gamma_of_mean_one(cv, 3, 1, number, one, *purposes) for number, one in enumerate(uniforms)
    ]
    assert stats.kstest(gaps, stats.gamma(1 / cv**2, scale=cv**2).cdf).pvalue > 1e-3


def test_gaps_are_independent_of_each_other_and_of_the_class() -> None:
    times, shapes = laid_out(model_of("gamma:cv=2"), 0, 20_000)
    gaps = np.diff(times)
    bound = 4 / math.sqrt(len(gaps))
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < bound
    assert abs(np.corrcoef(gaps, shapes[1:])[0, 1]) < bound


def test_deterministic_gaps_are_equal() -> None:
    np.testing.assert_allclose(gaps_of("deterministic", 2, 100), 1 / RATE, rtol=1e-10)


def test_clipping_raises_the_rate() -> None:
    gaps = gaps_of("poisson-clipped")
    assert gaps.max() <= 3 / RATE * (1 + 1e-9)
    contains(gaps.mean(axis=1), (1 - math.exp(-3)) / RATE)


@pytest.mark.parametrize("text", ["mmpp:ratio=5,mean_s=6", "mmpp:ratio=8,mean_s=2,slow_mean_s=8"])
def test_two_state_arrivals_have_their_rate_and_dispersion(text: str) -> None:
    """Stationary counts: mean λt and the index of dispersion of Fischer and Meier-Hellstern."""
    arrivals = parse_arrivals(text)
    model = model_of(text)
    window_s = 20.0
    counts = counts_of(model, np.array([0.0, window_s]), replications=4000)[:, 0].astype(float)
    contains(counts, RATE * window_s)
    record = model.arrivals[0]
    fast, slow = RATE * record["fast_factor"], RATE * record["slow_factor"]
    assert fast / slow == pytest.approx(arrivals.ratio)
    leave_fast, leave_slow = 1 / record["fast_mean_s"], 1 / record["slow_mean_s"]
    total = leave_fast + leave_slow
    limit = (
        2
        * (fast - slow) ** 2
        * (leave_fast * leave_slow)
        / (total**2 * (fast * leave_slow + slow * leave_fast))
    )
    share = 1 - (1 - math.exp(-total * window_s)) / (total * window_s)
    dispersion = 1 + limit * share
    assert dispersion > 3
    contains((counts - RATE * window_s) ** 2 / (RATE * window_s), dispersion)


PROFILE = [
    {"start_s": 0, "multiplier": 0.5},
    {"start_s": 10, "multiplier": 2.0},
    {"start_s": 15, "multiplier": 0.0},
    {"start_s": 18, "multiplier": 1.25},
]


@pytest.mark.parametrize("period_s", [None, 24.0])
def test_profile_counts_are_poisson_in_every_window(period_s: float | None) -> None:
    """The Poisson dispersion test of each window, whose mean is rate × ∫ multiplier."""
    changes = {} if period_s is None else {"period_s": period_s}
    model = model_of("poisson", rate_profile=PROFILE, **changes)
    edges = np.array([0.0, 5, 10, 15, 18, 24, 34, 39, 42, 48])
    cycle = [0.5, 0.5, 2.0, 0.0, 1.25]
    multipliers = np.array(cycle + ([1.25] * 4 if period_s is None else [0.5, 2.0, 0.0, 1.25]))
    counts = counts_of(model, edges, replications=800)
    looks = 2 * 2 * np.count_nonzero(multipliers)
    tail = 0.005 / looks
    for window, mean in zip(counts.T, RATE * multipliers * np.diff(edges), strict=True):
        if mean == 0:
            assert not window.any()
            continue
        contains(window.astype(float), mean, looks)
        dispersion = ((window - mean) ** 2).sum() / mean
        assert stats.chi2.ppf(tail, 800) < dispersion < stats.chi2.ppf(1 - tail, 800)
        probabilities = stats.poisson(mean)
        cuts = np.unique(probabilities.ppf([0.2, 0.4, 0.6, 0.8]))
        observed = np.bincount(np.searchsorted(cuts, window), minlength=len(cuts) + 1)
        below = np.array([0.0, *probabilities.cdf(cuts), 1.0])
        assert stats.chisquare(observed, 800 * np.diff(below)).pvalue > 1e-3
    neighbours = np.corrcoef(counts[:, 0], counts[:, 1])[0, 1]
    assert abs(neighbours) < 4 / math.sqrt(800)


@pytest.mark.parametrize("text", EXAMPLES)
def test_profile_maps_the_same_stream(text: str) -> None:
    """Arrival k comes when ∫ multiplier reaches its time without the profile, at any rate."""
    profile = model_of(text, rate_profile=PROFILE, period_s=24.0)
    for scale in (1.0, 3.0):
        plain_s, _ = laid_out(model_of(text), 1, 500, rate_scale=scale)
        times, _ = laid_out(profile, 1, 500, rate_scale=scale)
        starts = np.array([one["start_s"] for one in PROFILE] + [24.0])
        values = np.array([one["multiplier"] for one in PROFILE])
        integral = np.concatenate([[0.0], np.cumsum(values * np.diff(starts))])
        rate_time = times // 24 * integral[-1] + np.interp(times % 24, starts, integral)
        np.testing.assert_allclose(rate_time, plain_s, rtol=1e-9)
        assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize("text", EXAMPLES)
def test_burst_joins_the_stream_and_leaves_it_alone(text: str) -> None:
    separator = "," if ":" in text else ":"
    plain_s, plain_shapes = laid_out(model_of(text), 2, 300)
    for at_s in (0.0, 20.5):
        model = model_of(f"{text}{separator}burst=40,burst_at_s={at_s}")
        times, shapes = laid_out(model, 2, 340)
        first = int(np.searchsorted(plain_s, at_s))
        burst = slice(first, first + 40)
        assert (times[burst] == at_s).all()
        assert 5 < (shapes[burst] == 0).sum() < 40
        np.testing.assert_array_equal(np.delete(times, burst), plain_s)
        np.testing.assert_array_equal(np.delete(shapes, burst), plain_shapes)


@pytest.mark.parametrize("text", EXAMPLES)
def test_results_depend_neither_on_threads_nor_on_order(text: str) -> None:
    model = model_of(text + (",burst=9" if ":" in text else ":burst=9"))
    jobs = [cpu.Job(parse_policy("greedy"), k, rate_scale=0.5 + 0.1 * k) for k in range(8)]
    alone = cpu.run(model, jobs, 300, threads=1)
    together = cpu.run(model, jobs[::-1], 300, threads=3)[::-1]
    for one, two in zip(alone, together, strict=True):
        for field in one.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(one, field), getattr(two, field))


@pytest.mark.parametrize("name", RULES)
def test_every_kind_of_policy_sees_the_same_bursty_arrivals(name: str) -> None:
    model = model_of("mmpp:ratio=5,mean_s=3")
    needs_thresholds = POLICIES[name].per_class or POLICIES[name].per_segment
    thresholds = (1, 1) if needs_thresholds else ()
    job = cpu.Job(POLICIES[name].configure({}, thresholds), 4)
    trace = cpu.run_traced(model, job, 200)
    np.testing.assert_array_equal(trace.arrived_at_s, laid_out(model, 4, 200)[0])


@pytest.mark.parametrize("text", [*EXAMPLES, "gamma:cv=2,burst=7", "mmpp:slow_mean_s=90"])
def test_label_reads_back(text: str) -> None:
    assert parse_arrivals(parse_arrivals(text).label) == parse_arrivals(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pareto", "arrivals: got 'pareto'; allowed: one of poisson, gamma, deterministic, mmpp"),
        ("gamma:ratio=2", "parameter: got 'ratio'; allowed: one of cv, burst, burst_at_s"),
        ("gamma:cv=0", "gamma: cv: got 0.0; allowed: a number from 0.01 to 100"),
        ("gamma:cv=nan", "gamma: cv: got nan"),
        ("gamma:cv", "gamma: cv: got ''; allowed: a number"),
        ("mmpp:ratio=0.5", "mmpp: ratio: got 0.5; allowed: a finite number ≥ 1"),
        ("mmpp:mean_s=0", "mmpp: mean_s: got 0.0"),
        ("mmpp:slow_mean_s=inf", "mmpp: slow_mean_s: got inf"),
        ("poisson:burst=1.5", "poisson: burst: got '1.5'; allowed: a whole number"),
        ("poisson:burst=-1", "poisson: burst: got -1"),
        ("poisson:burst_at_s=-1", "poisson: burst_at_s: got -1.0"),
    ],
)
def test_bad_arrivals(text: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        parse_arrivals(text)
    assert told in str(error.value)


TURNING = [
    {"start_s": 0.0, "multiplier": 1.0, "class_multipliers": {"a": 0.5}},
    {"start_s": 100.0, "multiplier": 2.0, "class_multipliers": {"b": 3.0}},
    {"start_s": 150.0, "multiplier": 0.0},
]
"""Rates of a and b: 1.5 and 1, then 6 and 6, then none."""


@pytest.mark.parametrize("text", ["poisson", "gamma:cv=0.5"])
def test_each_class_has_the_rate_of_its_own_profile(text: str) -> None:
    model = model_of(text, rate_profile=TURNING, period_s=160.0)
    edges = np.array([0.0, 100.0, 150.0, 160.0, 260.0, 310.0])
    found = [laid_out(model, k, 2_500, seed=3) for k in range(60)]
    for index, rates in enumerate(((1.5, 6.0, 0.0), (1.0, 6.0, 0.0))):
        counts = np.array([np.histogram(at[kind == index], edges)[0] for at, kind in found])
        expected = [rates[k % 3] * width for k, width in enumerate(np.diff(edges))]
        for column, mean in zip(counts.T, expected, strict=True):
            if mean == 0:
                assert (column == 0).all()
            else:
                contains(column, mean, looks=8)


def test_a_class_that_varies_by_itself_is_no_mean_rate() -> None:
    rush = [
        {"start_s": 0, "multiplier": 1.0, "class_multipliers": {"a": 0.5}},
        {"start_s": 5, "multiplier": 1.0, "class_multipliers": {"a": 1.5}},
    ]
    fine = equilibrium(mix(rate_profile=rush, period_s=10.0), SERVER)
    assert "no class above 1.5 times its mean, is within" in fine.caveats[-1]
    with pytest.raises(InputError, match=r"long-run mean multiplier 1\.25 of class a"):
        equilibrium(mix(rate_profile=rush, period_s=20.0), SERVER)
    varying = mix(rate_profile=rush, period_s=20.0)
    assert Workload.from_document(varying.document()) == varying


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"rate_profile": [{"start_s": 0, "multiplier": 1, "class_multipliers": {"c": 2}}]},
            "class_multipliers must name classes of the workload, 'c' is none",
        ),
        ({"period_s": 3.0}, "period_s needs a rate_profile"),
        ({"rate_profile": []}, "rate_profile: got []; allowed: at least 1 entry"),
        ({"rate_profile": [{"start_s": 1.0, "multiplier": 1.0}]}, "must be 0 first"),
        ({"rate_profile": [PROFILE[0], PROFILE[0]]}, "then increase"),
        ({"rate_profile": PROFILE, "period_s": 18.0}, "above the last start_s, 18"),
        ({"rate_profile": PROFILE[:3]}, "its last multiplier must be above 0"),
        ({"rate_profile": [{"start_s": 0, "multiplier": 0}], "period_s": 1.0}, "its mean must"),
        (
            {"rate_profile": [{"start_s": 0, "multiplier": -1}]},
            "rate_profile[0].multiplier: got -1",
        ),
    ],
)
def test_bad_profiles(changes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError) as error:
        mix(**changes)
    assert told in str(error.value)


def test_constant_rate_theory_does_not_ignore_a_profile() -> None:
    """Mean multiplier 1: the figures of the mean and a note; any other mean is refused."""
    assert mix(rate_profile=PROFILE).mean_multiplier == 1.25
    assert mix(rate_profile=PROFILE, period_s=24.0).mean_multiplier == pytest.approx(22.5 / 24)
    for solver in (equilibrium, lambda w, s: Paced().solve(w, s)):
        with pytest.raises(InputError, match=r"long-run mean multiplier 1\.25'; allowed: constant"):
            solver(mix(rate_profile=PROFILE), SERVER)
    rush = [{"start_s": 0, "multiplier": 0.5}, {"start_s": 5, "multiplier": 1.5}]
    varying = mix(rate_profile=rush, period_s=10.0)
    plain, found = equilibrium(mix(), SERVER), equilibrium(varying, SERVER)
    note = found.caveats[-1]
    assert found.caveats == (*plain.caveats, note)
    assert note.startswith("rates vary over time")
    assert "1.5 times the mean, is within" in note
    assert found.first_order == plain.first_order
    assert note in Paced().solve(varying, SERVER).notes


def test_profile_is_part_of_a_workloads_identity_only_where_there_is_one() -> None:
    assert "rate_profile" not in mix().document()
    varying = mix(rate_profile=PROFILE, period_s=24.0)
    assert Workload.from_document(varying.document()) == varying
    assert varying.sha256() != mix().sha256()
