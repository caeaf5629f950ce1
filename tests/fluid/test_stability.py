"""Stability region: the simplex of affine servers and the largest multiple for any other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import load_server
from fluid.steady.equilibrium import equilibrium
from fluid.steady.intake import intake
from fluid.steady.stability import stability
from fluid.workload import RequestClass, Workload
from tests.support.builders import one_class
from tests.support.builders import server as server_of
from tests.support.fluid_strategies import affine_times, general_times, roomy, servers, workloads

any_times = st.one_of(affine_times(), general_times())
METHODS = [None, "mean"]


@st.composite
def cases(draw, times=any_times):
    """A workload and a server into which each of its classes fits."""
    server = draw(servers(times))
    least = max(server.kv_capacity_tokens, 1_600)
    return draw(workloads(longest=400)), server.model_copy(update={"kv_capacity_tokens": least})


def test_limit_of_the_long_decode_case():
    found = stability(one_class(1.0, 512, 1000), load_server("paper-long-decode"))
    assert found.max_scale == pytest.approx(2.741, rel=0.002)


def test_limits_of_the_engine_long_decode_case():
    """The published 2.444/s counts memory in tokens; whole blocks cost a little more."""
    server = load_server("engine-long-decode")
    tokens = server.model_copy(update={"block_tokens": 1})
    granular = stability(one_class(1.0, 512, 1000), tokens).max_scale
    assert granular == pytest.approx(2.444, rel=0.002)
    assert 0.99 * granular < stability(one_class(1.0, 512, 1000), server).max_scale < granular


def test_single_class_on_the_boundary_holds_capacity_over_m():
    """THEORY 3.5: n^C of one class is C/m."""
    server = load_server("paper-long-decode")
    found = stability(one_class(1.3, 512, 1000), server)
    memory_sum = 1001 * (512 + 500)
    assert found.boundary_per_stage == pytest.approx([137_000 / memory_sum])


def test_max_batch_oracle_of_dai():
    """THEORY 6.6: t_b = c + a⌈b/b0⌉ up to b_max = 512 tokens, c = 11.28 ms, a = 35.47 ms, b0 = 128.

    The limit λ = b_max/((l + l')·t(b_max)) counts 100 + 100 tokens; engine stages compute 199.
    """
    c, a = 0.01128, 0.03547
    tiles = range(5)
    tokens = np.repeat([128.0 * tile for tile in tiles], 2).tolist()
    seconds = np.ravel([(c + a * tile, c + a * (tile + 1)) for tile in tiles]).tolist()
    # Beyond b_max no batch is allowed: a cliff.
    tau = IterationTime(
        tokens_knots=(*tokens, 513.0), seconds_knots=(0.0, *seconds[1:-1], 100.0, 200.0)
    )
    server = server_of(tau, kv_capacity_tokens=10**7)
    found = stability(one_class(1.0, 100, 100), server, "mean")
    assert found.max_scale * 199 / 200 == pytest.approx(16.71, rel=0.001)
    assert (found.binding, found.compute_share, found.memory_share) == ("compute", 1.0, 0.0)


@pytest.mark.parametrize("method", METHODS)
@given(case=cases(), factor=st.floats(0.1, 10))
def test_scaled_workload_is_as_much_nearer(method, case, factor):
    workload, server = case
    first = stability(workload, server, method)
    second = stability(workload.scaled(factor), server, method)
    assert second.max_scale == pytest.approx(first.max_scale / factor, rel=1e-6)
    assert second.margin == pytest.approx(1 - 1 / second.max_scale)
    assert second.memory_share == pytest.approx(first.memory_share, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
@given(case=cases(), factor=st.floats(0.3, 3))
def test_verdict_is_that_an_equilibrium_exists_and_fits(method, case, factor):
    workload, server = case
    at_boundary = workload.scaled(stability(workload, server, method).max_scale)
    assume(abs(factor - 1) > 1e-3)
    found = equilibrium(at_boundary.scaled(factor), server, method)
    exists = found.iteration_time_s is not None
    assert found.stable == (factor < 1)
    assert found.stable == (exists and found.kv_tokens <= found.kv_capacity_tokens)
    assert found.stable == (found.first_order is not None)


@pytest.mark.parametrize("method", METHODS)
@given(case=cases(general_times()))
def test_no_intake_that_fits_supports_more(method, case):
    workload, server = case
    curve = intake(workload, server, method)
    scales = [y / curve.time_s(y) for y in np.geomspace(1e-4, 1, 200) * curve.limit_s]
    assert max(scales) <= stability(workload, server, method).max_scale * (1 + 1e-9)


@given(cases(affine_times()))
def test_affine_region_is_a_half_space(case):
    workload, server = case
    found = stability(workload, server)
    rates = np.array([one.rate_per_s for one in workload.classes])
    assert found.half_space_per_s.shape == rates.shape
    assert rates @ found.half_space_per_s == pytest.approx(1 / found.max_scale, rel=1e-9)
    assert found.compute_share == pytest.approx(found.max_scale * found.utilisation, abs=1e-9)
    assert found.compute_share + found.memory_share == pytest.approx(1)
    larger = max(found.compute_share, found.memory_share)
    assert getattr(found, f"{found.binding}_share") == larger


@given(cases(affine_times()))
def test_half_space_is_found_by_probing_one_class_at_a_time(case):
    workload, server = case
    found = stability(workload, server)
    for index, one in enumerate(workload.classes):
        alone = workload.model_copy(update={"classes": (one,)})
        limit_per_s = one.rate_per_s * stability(alone, server).max_scale
        assert found.half_space_per_s[index] == pytest.approx(1 / limit_per_s, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
@given(case=cases())
def test_boundary_is_the_equilibrium_of_the_boundary_rates(method, case):
    workload, server = case
    found = stability(workload, server, method)
    rates = np.array([one.rate_per_s for one in workload.classes])
    np.testing.assert_allclose(
        found.boundary_per_stage,
        found.max_scale * rates * found.boundary_iteration_time_s,
        rtol=1e-9,
    )
    near = equilibrium(workload.scaled(found.max_scale * (1 - 1e-6)), server, method)
    assert near.iteration_time_s <= found.boundary_iteration_time_s * (1 + 1e-6)


@given(cases(affine_times()))
def test_memory_share_is_what_more_memory_buys(case):
    """∂ln α*/∂ln C = memory_share, by a central difference."""
    workload, server = case
    server = server.model_copy(update={"kv_capacity_tokens": 160_000, "block_tokens": 1})
    more, less = (
        stability(workload, server.model_copy(update={"kv_capacity_tokens": tokens})).max_scale
        for tokens in (160_160, 159_840)
    )
    share = stability(workload, server).memory_share
    assert np.log(more / less) / 0.002 == pytest.approx(share, rel=1e-4, abs=1e-9)


def test_interior_limit_is_compute_bound():
    """f steeper beyond 200 tokens than y can keep up with: more memory would not help."""
    tau = IterationTime(tokens_knots=(0, 200, 210), seconds_knots=(0.01, 0.011, 0.02))
    server = server_of(tau)
    found = stability(one_class(1.0, 100, 20), server, "mean")
    assert (found.binding, found.memory_share) == ("compute", 0.0)
    assert found.boundary_iteration_time_s == pytest.approx(0.011)
    assert found.max_scale == pytest.approx(200 / 119 / 0.011)
    larger = server.model_copy(update={"kv_capacity_tokens": 10**6})
    assert stability(one_class(1.0, 100, 20), larger, "mean").max_scale == found.max_scale


def test_general_f_has_no_half_space():
    found = stability(one_class(5.0, 512, 20), load_server("a100-80gb-llama-2-7b"))
    assert found.half_space_per_s is None
    assert 20 < 5 * found.max_scale < 30


def test_request_that_cannot_fit_is_refused():
    with pytest.raises(InputError, match="at most the 137000 tokens"):
        stability(one_class(1.0, 512, 200_000), load_server("paper-lmsys"))


def test_the_best_intake_just_below_a_jump_is_found():
    """Few prompts of one length: T jumps where some number of them fills a tile, and between the
    points of any grid y/T(y) is highest just before one of those jumps."""
    tau = IterationTime(
        tokens_knots=(0.0, 10.0, 10.0, 291.0, 301.0, 301.0, 311.0, 503.0, 603.0),
        seconds_knots=(
            *(0.002946481423442563, 0.0036850054035262383, 0.005087955890118573),
            *(0.007897955890118574, 0.007897955890118574, 0.010662801302143914),
            *(0.010662801302143914, 0.023758927386675774, 0.033492790929005346),
        ),
    )
    workload = Workload(
        name="sawtooth",
        classes=(
            RequestClass(
                name="cached",
                rate_per_s=1.8017699554409787,
                prefill_tokens=0,
                context_tokens=112,
                decode_tokens=85,
            ),
            RequestClass(
                name="prompt", rate_per_s=0.998777433412782, prefill_tokens=9, decode_tokens=1
            ),
        ),
    )
    server = roomy(server_of(tau)).model_copy(update={"block_tokens": 16})
    curve = intake(workload, server)
    intakes_s = np.linspace(0.02, 3.0, 20_000)
    by_enumeration = max(y / curve.time_s(y) for y in intakes_s)
    found = stability(workload, server).max_scale
    assert by_enumeration <= found <= by_enumeration * (1 + 1e-3)
