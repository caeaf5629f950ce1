"""The transient fluid model against a slow loop, its fixed point, and its symmetries."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from fluid.errors import InfeasibleError, InputError
from fluid.iteration import IterationTime
from fluid.plots.style import save
from fluid.server import load_server
from fluid.steady.equilibrium import equilibrium
from fluid.transient.admission import Admission
from fluid.transient.inflow import Burst, RateProfile
from fluid.transient.path import FluidPath, simulate_fluid
from fluid.workload import RatePiece, RequestClass, Workload
from tests.support.builders import one_class
from tests.support.builders import server as server_of
from tests.support.fluid_strategies import ROOMY_TOKENS, affine_times, roomy, servers, workloads
from tests.support.transient_oracle import slow_path

TWO = Workload(
    name="two",
    classes=(
        RequestClass(name="a", rate_per_s=30.0, prefill_tokens=40, decode_tokens=12),
        RequestClass(name="b", rate_per_s=12.0, prefill_tokens=15, decode_tokens=30),
    ),
)
SMALL = server_of(
    IterationTime.affine(0.01, 1e-5, 1e-6, 1e-5, 1e-5), "decode", kv_capacity_tokens=900
)


def columns(found: FluidPath) -> np.ndarray:
    """As the rows of `slow_path`."""
    return np.column_stack(
        [
            found.time_s,
            found.waiting,
            found.residents,
            found.kv_tokens,
            found.completed,
            found.evicted,
        ]
    )


TICKS = SMALL.model_copy(
    update={
        "block_tokens": 16,
        "first_token": "prefill",
        "iteration_time": IterationTime.affine(1 / 32, 0.0),
    }
)
"""Iterations of one length, whatever is in them."""


@settings(max_examples=60)
# Credit that is spent leaves a crumb of rounding, which is nobody in service.
@example(
    workload=one_class(3.0, 0, 2, context=1),
    server=TICKS,
    fill=0.125,
    watermark=0.0,
    cap=math.inf,
    pace=0.3,
    burst=0.0,
    name=False,
)
@given(
    workload=workloads(max_classes=3, longest=30),
    server=servers(affine_times()),
    fill=st.floats(0.05, 1.5),
    watermark=st.sampled_from([0.0, 0.01, 0.2]),
    cap=st.sampled_from([math.inf, 1.0, 7.5]),
    pace=st.sampled_from([math.inf, 0.3, 2.0]),
    burst=st.floats(0.0, 40.0),
    name=st.booleans(),
)
def test_fast_equals_slow(workload, server, fill, watermark, cap, pace, burst, name) -> None:
    """Random workloads, servers and rules, in memory small enough for evictions."""
    peak = max(
        server.block_rounded(one.prefill_tokens + one.context_tokens + one.decode_tokens)
        for one in workload.classes
    )
    server = server.model_copy(update={"kv_capacity_tokens": int(peak * (1 + 4 * fill))})
    rule = Admission(watermark, cap, pace)
    horizon_s = 60 * server.iteration_time.overhead_s
    profile = RateProfile.steps(workload, [5.0, 40.0, 2.0], [0.0, horizon_s / 5, horizon_s / 3])
    only = workload.classes[0].name if name else None
    bursts = [Burst(horizon_s / 4, burst, only), Burst(0.0, 3.0)]
    found = simulate_fluid(
        workload, server, horizon_s=horizon_s, rule=rule, rate_profile=profile, bursts=bursts
    )
    slow = np.array(slow_path(workload, server, profile, bursts, rule, len(found.time_s)))
    np.testing.assert_allclose(columns(found), slow, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("block", [1, 16])
def test_evictions_equal_slow(block: int) -> None:
    """A long run in which two classes keep evicting each other."""
    server = SMALL.model_copy(update={"block_tokens": block})
    rule, profile = Admission(0.02, pace=5.0), RateProfile.steps(TWO, [6.0])
    found = simulate_fluid(TWO, server, horizon_s=6.0, rule=rule, rate_profile=profile)
    assert found.evicted[-1] > 10
    slow = np.array(slow_path(TWO, server, profile, [], rule, len(found.time_s)))
    np.testing.assert_allclose(columns(found), slow, rtol=1e-6, atol=1e-6)


@given(workload=workloads(), server=servers(affine_times()), load=st.floats(0.05, 0.95))
@settings(max_examples=20)
def test_settles_at_the_equilibrium_from_empty(workload, server, load) -> None:
    """In memory that holds the overshoot of the first generation, which grows all at once."""
    server = roomy(server)
    workload = workload.scaled(load * equilibrium(workload, server).max_scale)
    server = server.model_copy(update={"kv_capacity_tokens": 10 * ROOMY_TOKENS})
    expected = equilibrium(workload, server)
    longest = max(one.stages for one in expected.classes)
    # A generation of requests leaves a share ρ of the distance: e^−10 of it by the 90 % mark.
    generations = 60 + 12 / (1 - expected.utilisation)
    horizon_s = generations * longest * expected.iteration_time_s
    found = simulate_fluid(workload, server, horizon_s=horizon_s)
    late = found.time_s > 0.9 * horizon_s
    assert found.evicted[-1] == 0
    np.testing.assert_allclose(found.kv_tokens[late], expected.kv_tokens, rtol=1e-3)
    np.testing.assert_allclose(np.diff(found.time_s[late]), expected.iteration_time_s, rtol=1e-3)


@pytest.mark.parametrize("burst", [0.0, 20.0])
def test_stays_at_and_returns_to_the_equilibrium(burst: float) -> None:
    server = load_server("a100-80gb-llama-2-7b")
    workload = one_class(8.0, 512, 20)
    expected = equilibrium(workload, server, "mean")
    n = expected.classes[0].in_service_per_stage
    found = simulate_fluid(
        workload,
        server,
        horizon_s=60.0,
        start="equilibrium",
        bursts=[Burst(1.0, burst)],
        snapshots_s=[0.5, 59.0],
    )
    assert found.kv_tokens.max() > expected.kv_tokens * (1.001 if burst else 0.999)
    assert found.kv_tokens[-1] == pytest.approx(expected.kv_tokens, rel=1e-4)
    np.testing.assert_allclose(found.population[:, :, 0], n, rtol=1e-4)


def test_mass_is_conserved_through_bursts_evictions_and_pauses() -> None:
    profile = RateProfile.steps(TWO, [4.0, 0.0, 2.0], [0.0, 3.0, 8.0])
    bursts = [Burst(0.0, 12.0), Burst(6.0, 30.0, "b"), Burst(9.0, 8.0)]
    found = simulate_fluid(TWO, SMALL, horizon_s=12.0, rate_profile=profile, bursts=bursts)
    inside = found.waiting + found.residents
    np.testing.assert_allclose(found.arrived - found.completed, inside, rtol=0, atol=1e-8)
    due = [
        profile.arrived(t).sum() + sum(one.requests for one in bursts if one.time_s <= t)
        for t in found.time_s
    ]
    np.testing.assert_allclose(found.arrived, due, rtol=1e-12)
    assert found.evicted[-1] > 0
    assert found.kv_tokens.max() <= SMALL.usable_kv_tokens * (1 + 1e-12)


def test_an_idle_server_sleeps_until_something_comes() -> None:
    profile = RateProfile.steps(TWO, [0.0, 1.0], [0.0, 500.0])
    found = simulate_fluid(
        TWO, SMALL, horizon_s=501.0, rate_profile=profile, bursts=[Burst(100.0, 1.0)]
    )
    assert found.time_s[1] == 100.0
    assert found.completed[found.time_s < 400.0][-1] == pytest.approx(1.0)
    assert len(found.time_s) < 300


def test_order_of_classes_and_unit_of_time_do_not_matter() -> None:
    turned = TWO.model_copy(update={"classes": TWO.classes[::-1]})
    one = simulate_fluid(TWO, SMALL, horizon_s=4.0, rate_profile=RateProfile.steps(TWO, [2.0]))
    two = simulate_fluid(
        turned, SMALL, horizon_s=4.0, rate_profile=RateProfile.steps(turned, [2.0])
    )
    np.testing.assert_allclose(columns(one), columns(two), rtol=1e-7, atol=1e-7)
    tau = SMALL.iteration_time
    faster = {
        field: value / 8 if field.startswith("per_") else value
        for field, value in tau.model_dump().items()
    } | {"seconds_knots": tuple(s / 8 for s in tau.seconds_knots)}
    quick = SMALL.model_copy(update={"iteration_time": IterationTime(**faster)})
    three = simulate_fluid(TWO, quick, horizon_s=0.5, rate_profile=RateProfile.steps(TWO, [16.0]))
    rescaled = columns(three) * [8, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(columns(one), rescaled, rtol=1e-7, atol=1e-7)


def test_cap_and_pace_bound_what_they_name() -> None:
    flood = [Burst(0.0, 100.0)]
    found = simulate_fluid(TWO, SMALL, horizon_s=2.0, rule=Admission(cap=9.0), bursts=flood)
    assert found.residents.max() == pytest.approx(9.0)
    found = simulate_fluid(TWO, SMALL, horizon_s=2.0, rule=Admission(pace=0.25), bursts=flood)
    admitted = found.residents + found.completed + found.evicted
    assert np.diff(admitted).max() <= 0.25 + 1e-9
    assert admitted[0] == pytest.approx(1.25)


def test_rows_are_thinned_not_changed() -> None:
    full = simulate_fluid(TWO, SMALL, horizon_s=2.0)
    thin = simulate_fluid(TWO, SMALL, horizon_s=2.0, every=7)
    np.testing.assert_array_equal(columns(full)[::7], columns(thin)[:-1])
    np.testing.assert_array_equal(columns(full)[-1], columns(thin)[-1])
    assert full.time_s[-2] < 2.0 <= full.time_s[-1]


def test_a_sampled_day_brings_what_its_integral_says() -> None:
    day = RateProfile.sampled(TWO, lambda t: 1 + math.sin(2 * math.pi * t / 50), 50.0, 0.5)
    np.testing.assert_allclose(day.arrived(50.0), [50 * 30.0, 50 * 12.0], rtol=1e-9)


@pytest.mark.parametrize("period_s", [None, 1.5])
def test_the_profile_of_the_workload_is_honoured(period_s: float | None) -> None:
    pieces = (RatePiece(start_s=0.0, multiplier=0.5), RatePiece(start_s=0.5, multiplier=1.25))
    varying = TWO.model_copy(update={"rate_profile": pieces, "period_s": period_s})
    found = simulate_fluid(varying, SMALL, horizon_s=4.0)
    starts_s = [0.0, 0.5] if period_s is None else [0.0, 0.5, 1.5, 2.0, 3.0, 3.5]
    steps = RateProfile.steps(TWO, [0.5, 1.25] * (len(starts_s) // 2), starts_s)
    told = simulate_fluid(TWO, SMALL, horizon_s=4.0, rate_profile=steps)
    np.testing.assert_array_equal(columns(found), columns(told))
    due = [steps.arrived(t).sum() for t in found.time_s]
    np.testing.assert_allclose(found.arrived, due, rtol=1e-12)
    # What is asked for goes before what the workload says.
    asked = simulate_fluid(varying, SMALL, horizon_s=4.0, rate_profile=RateProfile.steps(TWO))
    np.testing.assert_array_equal(columns(asked), columns(simulate_fluid(TWO, SMALL, horizon_s=4)))


def test_the_mix_of_the_workload_may_vary() -> None:
    first, second = (one.name for one in TWO.classes)
    pieces = (
        RatePiece(start_s=0.0, multiplier=0.5, class_multipliers={first: 3.0}),
        RatePiece(start_s=0.5, multiplier=1.25, class_multipliers={second: 0.2}),
    )
    found = RateProfile.of(TWO.model_copy(update={"rate_profile": pieces, "period_s": 1.5}), 3.0)
    np.testing.assert_allclose(found.starts_s, [0.0, 0.5, 1.5, 2.0])
    factors = np.array([[1.5, 0.5], [1.25, 0.25]] * 2)
    np.testing.assert_allclose(found.rates_per_s, factors * TWO.rates_per_s)


def test_population_plot(tmp_path: Path) -> None:
    found = simulate_fluid(TWO, SMALL, horizon_s=2.0, snapshots_s=np.linspace(0, 3, 40).tolist())
    save(lambda: found.plot(picture="population"), tmp_path / "p.svg")
    assert (tmp_path / "p.svg").stat().st_size > 1000
    with pytest.raises(InputError, match="at least 2 snapshots"):
        simulate_fluid(TWO, SMALL, horizon_s=1.0).plot(picture="population")


def test_kv_by_stage_adds_up_to_the_kv_in_use(tmp_path: Path) -> None:
    found = simulate_fluid(TWO, SMALL, horizon_s=2.0, snapshots_s=[0.5, 1.5])
    edges, bands = found.kv_by_stage()
    for time_s, held in zip(found.snapshots_s, bands, strict=True):
        row = np.searchsorted(found.time_s, time_s)
        assert held.sum() == pytest.approx(found.kv_tokens[row])
        assert len(edges) == len(held) + 1
    save(lambda: found.plot(picture="kv"), tmp_path / "k.svg")
    assert "</svg>" in (tmp_path / "k.svg").read_text(encoding="utf-8")
    for snapshots_s in ([], [8.0, 9.0]):
        other = simulate_fluid(TWO, SMALL, horizon_s=2.0, snapshots_s=snapshots_s)
        with pytest.raises(InputError, match="within the horizon"):
            other.plot(picture="kv")


def test_a_path_draws_three_panels_over_time() -> None:
    found = simulate_fluid(TWO, SMALL, horizon_s=2.0)
    grid = found.plot(Figure().subplots(3))
    assert [one.get_ylabel() for one in grid] == ["waiting", "in the batch", "KV (tokens)"]
    with pytest.raises(InputError, match="one of time, population, kv"):
        found.plot(picture="movie")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"horizon_s": 0.0}, "horizon_s"),
        ({"every": 0}, "every"),
        ({"start": "full"}, "empty or equilibrium"),
        ({"snapshots_s": [2.0, 1.0]}, "snapshots_s"),
        ({"bursts": [Burst(0.0, 1.0, "z")]}, "one of a, b"),
        ({"rate_profile": RateProfile(np.zeros(1), np.ones((1, 3)))}, "the 2 classes"),
    ],
)
def test_refusals(arguments: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        simulate_fluid(TWO, SMALL, **({"horizon_s": 1.0} | arguments))


def test_refusals_of_the_parts() -> None:
    for build, match in (
        (lambda: Admission(watermark=1.0), "watermark"),
        (lambda: Admission(cap=0.5), "cap"),
        (lambda: Admission(pace=-1.0), "pace"),
        (lambda: Burst(-1.0, 1.0), "time_s"),
        (lambda: Burst(0.0, math.inf), "requests"),
        (lambda: RateProfile(np.array([1.0]), np.ones((1, 1))), "starts_s"),
        (lambda: RateProfile(np.zeros(1), np.ones((2, 1))), "1 rows"),
        (lambda: RateProfile(np.zeros(1), -np.ones((1, 1))), "rates ≥ 0"),
        (
            lambda: simulate_fluid(TWO, SMALL, horizon_s=1.0).rates_between(5.0, 6.0),
            "two rows",
        ),
    ):
        with pytest.raises(InputError, match=match):
            build()
    with pytest.raises(InfeasibleError, match="equilibrium to start from"):
        simulate_fluid(TWO.scaled(100), SMALL, horizon_s=1.0, start="equilibrium")
