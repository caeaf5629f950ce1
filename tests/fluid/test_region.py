"""The region over all rate vectors: simplex, traced boundary, slices, and what is inside."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid.errors import InfeasibleError, InputError
from fluid.server import load_server
from fluid.steady.region import StabilityRegion, mixed, shares
from fluid.steady.stability import stability
from fluid.workload import RequestClass, Workload
from tests.support.fluid_strategies import affine_times, general_times, roomy, servers, workloads


def workload_of(*lengths: tuple[int, int]) -> Workload:
    """Classes c0, c1, … of (prompt, output) at 1/s each."""
    classes = tuple(
        RequestClass(name=f"c{k}", rate_per_s=1.0, prefill_tokens=prompt, decode_tokens=output)
        for k, (prompt, output) in enumerate(lengths)
    )
    return Workload(name="lengths", classes=classes)


A100 = load_server("a100-80gb-llama-2-7b")
ENGINE = load_server("engine-long-decode")


@settings(max_examples=300)
@given(workloads(), servers(affine_times()), st.floats(1e-9, 10), st.randoms(use_true_random=False))
def test_the_simplex_is_stability(workload, server, scale, random):
    """Margins of permuted classes, from λ → 0 to beyond the boundary, against one at a time."""
    server = roomy(server)
    region = StabilityRegion(workload, server)
    rates = scale * region.operating_point_per_s
    found = stability(workload.scaled(scale), server)
    assert region.margins(rates) == pytest.approx(found.margin, rel=1e-9, abs=1e-9)
    assert region.reach(rates) == pytest.approx(found.max_scale, rel=1e-9)
    np.testing.assert_allclose(region.normal_s * region.intercepts_per_s, 1)
    order = random.sample(range(len(rates)), len(rates))
    permuted = workload.model_copy(update={"classes": tuple(workload.classes[k] for k in order)})
    again = StabilityRegion(permuted, server)
    np.testing.assert_allclose(again.normal_s, region.normal_s[order], rtol=1e-12)
    edge = rates * region.reach(rates)
    assert region.contains(edge * (1 - 1e-9))
    assert not region.contains(edge * (1 + 1e-9))


@settings(max_examples=200)
@given(workloads(), servers(affine_times()), st.floats(0.1, 10))
def test_a_clock_that_runs_faster_stretches_the_region(workload, server, factor):
    """Time constants ÷ ζ: the region grows by ζ in every direction (THEORY 3.3)."""
    tau = server.iteration_time
    faster = tau.model_copy(
        update={
            "seconds_knots": tuple(one / factor for one in tau.seconds_knots),
            "per_kv_token_s": tau.per_kv_token_s / factor,
            "per_prefill_token_s": tau.per_prefill_token_s / factor,
            "per_decode_request_s": tau.per_decode_request_s / factor,
        }
    )
    slow = StabilityRegion(workload, roomy(server))
    fast = StabilityRegion(workload, roomy(server).model_copy(update={"iteration_time": faster}))
    np.testing.assert_allclose(fast.intercepts_per_s, factor * slow.intercepts_per_s)


@settings(max_examples=25)
@given(workloads(max_classes=3), servers(general_times()))
def test_the_traced_region_is_stability_and_decreasing(workload, server):
    region = StabilityRegion(workload, roomy(server), "mean")
    rates = region.operating_point_per_s
    found = stability(workload, roomy(server), "mean")
    assert region.reach(rates) == pytest.approx(found.max_scale)
    assert region.normal_s is None
    edge = rates * found.max_scale
    for k in range(len(rates)):
        less = edge.copy()
        less[k] *= 0.5
        assert not less.any() or region.reach(less) >= 1 - 1e-9


@pytest.mark.parametrize(
    ("lengths", "error"),
    [
        (((512, 20), (512, 50)), 1e-5),
        (((512, 1000), (128, 200)), 2e-3),
        (((2048, 20), (32, 500)), 1e-3),
    ],
)
def test_interpolation_between_traced_mixes(lengths, error):
    region = StabilityRegion(workload_of(*lengths), A100)
    assert region.interpolation_error() < error
    mixes = np.random.default_rng(0).exponential(size=(20, 2)) * region.intercepts_per_s
    exact = [stability(mixed(region.workload, one), A100).margin for one in mixes]
    np.testing.assert_allclose(region.margins(mixes), exact, atol=1.5 * error * 5)
    corners = region.boundary(2)
    np.testing.assert_allclose(corners, region.vertices_per_s)


def test_an_affine_boundary_is_a_straight_line_and_its_trace_agrees():
    exact = StabilityRegion(workload_of((512, 20), (100, 400)), ENGINE)
    traced = StabilityRegion(exact.workload, ENGINE, "mean")
    np.testing.assert_allclose(traced.boundary(9), exact.boundary(9), rtol=1e-9)
    np.testing.assert_allclose(exact.boundary(9) / exact.intercepts_per_s, shares(9))
    assert exact.interpolation_error() == 0.0


def test_shapes_and_many_classes():
    region = StabilityRegion(workload_of((512, 20), (512, 50), (64, 64)), A100)
    rates = np.array(list(itertools.product([0.0, 5.0, 15.0], repeat=3))).reshape(3, 9, 3)
    inside = region.contains(rates)
    assert inside.shape == (3, 9)
    assert inside[0, 0]
    assert not inside[-1, -1]
    assert StabilityRegion(region.workload, ENGINE).contains(np.zeros((0, 3))).shape == (0,)


@pytest.mark.parametrize("server", [ENGINE, A100])
def test_a_slice_is_the_region_at_fixed_rates(server):
    region = StabilityRegion(workload_of((512, 20), (512, 50), (64, 64)), server)
    cut = region.slice({"c1": 5.0}, directions=5)
    assert cut.names == ("c0", "c2")
    whole = np.insert(cut.boundary_per_s, 1, 5.0, axis=1)
    np.testing.assert_allclose([region.reach(one) for one in whole], 1, rtol=1e-6)
    assert cut.vertices_per_s[0, 1] == cut.vertices_per_s[1, 0] == 0
    if server is ENGINE:
        np.testing.assert_allclose(cut.boundary_per_s @ cut.normal_s, 1)
    line = region.slice({"c1": 5.0, "c2": 0.0})
    assert line.boundary_per_s[0, 0] == pytest.approx(cut.vertices_per_s[0, 0], rel=1e-6)


def test_what_is_refused():
    region = StabilityRegion(workload_of((512, 20), (512, 50)), ENGINE)
    for rates in ([1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")], [1.0], 1.0):
        with pytest.raises(InputError, match="rates"):
            region.contains(rates)
    with pytest.raises(InputError, match="not all 0"):
        region.reach([0.0, 0.0])
    with pytest.raises(InputError, match="one of c0, c1"):
        region.slice({"c7": 1.0})
    with pytest.raises(InputError, match="left free"):
        region.slice({"c0": 1.0, "c1": 1.0})
    with pytest.raises(InfeasibleError, match="fixed rates"):
        region.slice({"c0": 1e6})
    with pytest.raises(InputError, match="directions"):
        region.boundary(1)
    with pytest.raises(InputError, match="two"):
        StabilityRegion(workload_of((1, 1)), ENGINE).boundary()
    with pytest.raises(InputError, match="at its end"):
        StabilityRegion(workload_of((10**6, 1)), ENGINE)
