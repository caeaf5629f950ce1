"""Inverse queries against symbols, against differences, and against stability at the answer."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid.errors import InfeasibleError, InputError
from fluid.iteration import IterationTime
from fluid.server import load_server
from fluid.stages import class_stages, linear_stage_seconds
from fluid.steady.capacity import capacity
from fluid.steady.derivatives import margin_derivatives
from fluid.steady.queries import QUERIES
from fluid.steady.stability import stability
from fluid.symbolic.steady import CAPACITY, OVERHEAD, class_symbols, equilibrium_forms, numeric
from fluid.workload import Workload
from tests.support.builders import one_class
from tests.support.builders import server as server_of
from tests.support.fluid_strategies import affine_times, general_times, roomy, servers, workloads

CLASSES = 3
KNOWN = class_symbols(CLASSES)
LOAD = 1 / equilibrium_forms(CLASSES).max_scale
ARGUMENTS = [OVERHEAD, CAPACITY, KNOWN.rates, KNOWN.works, KNOWN.memory_sums]
EXTRA = sp.Symbol("x", positive=True)


def solved(unknown: sp.Symbol) -> object:
    """The value of a symbol at which the margin is 0."""
    (value,) = sp.solve(sp.Eq(LOAD, 1), unknown)
    return numeric(ARGUMENTS, value)


SOLVED = {"kv_tokens": solved(CAPACITY), "overhead_s": solved(OVERHEAD)}
BY_CAPACITY = numeric(ARGUMENTS, sp.diff(1 - LOAD, CAPACITY))
BY_OVERHEAD = numeric(ARGUMENTS, sp.diff(1 - LOAD, OVERHEAD))
BY_RATE = numeric(ARGUMENTS, [sp.diff(1 - LOAD, one) for one in KNOWN.rates])
BY_WORK = numeric(ARGUMENTS, [sp.diff(1 - LOAD, one) for one in KNOWN.works])


def numbers(workload, server):
    """Arguments of the forms, padded with classes that never arrive."""
    stages = [class_stages(one, server) for one in workload.classes]
    slope_s = server.iteration_time.last_slope_s
    padding = [0.0] * (CLASSES - len(stages))
    return (
        server.iteration_time.overhead_s,
        server.usable_kv_tokens,
        [one.rate_per_s for one in workload.classes] + padding,
        [linear_stage_seconds(one, server, slope_s).sum() for one in stages] + padding,
        [one.memory_sum for one in stages] + padding,
    )


affine_cases = st.tuples(workloads(max_classes=CLASSES), servers(affine_times()).map(roomy))


@settings(max_examples=300)
@given(affine_cases, st.floats(1e-6, 3))
def test_affine_answers_are_the_symbolic_ones(case, scale):
    """From λ → 0 to beyond ρ = 1."""
    workload, server = case[0].scaled(scale), case[1]
    d0, _, rates, works, _ = known = numbers(workload, server)
    work = float(np.dot(rates, works))
    assert capacity(workload, server, "rate").value == pytest.approx(
        workload.rate_per_s / numeric(ARGUMENTS, LOAD)(*known)
    )
    if work < 1 - 1e-6:
        least = SOLVED["kv_tokens"](*known)
        found = capacity(workload, server, "kv_tokens").value
        peak = max(int(class_stages(one, server).held_kv_tokens.max()) for one in workload.classes)
        assert found % server.block_tokens == 0
        assert max(least, peak) * (1 - 1e-9) <= found < max(least, peak) + server.block_tokens + 1
        largest = SOLVED["overhead_s"](*known)
        # Overheads below a millionth of today's are not looked for.
        if largest > 2e-6 * d0:
            answer = capacity(workload, server, "overhead_s")
            assert answer.value == pytest.approx(largest, rel=1e-6)
    elif work > 1:
        for query in ("kv_tokens", "overhead_s"):
            with pytest.raises(InfeasibleError, match="compute"):
                capacity(workload, server, query)
    derivatives, method = margin_derivatives(workload, server)
    assert method == "analytic"
    assert derivatives["kv_tokens"] == pytest.approx(BY_CAPACITY(*known))
    assert derivatives["overhead_s"] == pytest.approx(BY_OVERHEAD(*known))
    for one, value in zip(workload.classes, BY_RATE(*known), strict=False):
        assert derivatives[f"rate_per_s[{one.name}]"] == pytest.approx(value)


COEFFICIENTS = ("per_kv_token_s", "per_prefill_token_s", "per_decode_request_s")


def with_time(server, **changes):
    tau = server.iteration_time.model_copy(update=changes)
    return server.model_copy(update={"iteration_time": tau})


@settings(max_examples=200)
@given(st.tuples(workloads(max_classes=3), servers(affine_times()).map(roomy)))
def test_derivatives_by_coefficients_are_differences(case):
    """The margin of an affine server is linear in each, so that differences are exact."""
    workload, server = case
    derivatives, _ = margin_derivatives(workload, server)
    before = stability(workload, server).margin
    for name in COEFFICIENTS:
        step = 1e-6
        after = stability(
            workload, with_time(server, **{name: getattr(server.iteration_time, name) + step})
        ).margin
        assert (after - before) / step == pytest.approx(derivatives[name], rel=1e-5, abs=1e-6)
    tau = server.iteration_time
    tilted = tuple(s + 1e-6 * n for n, s in zip(tau.tokens_knots, tau.seconds_knots, strict=True))
    after = stability(workload, with_time(server, seconds_knots=tilted)).margin
    assert (after - before) / 1e-6 == pytest.approx(derivatives["per_token_s"], rel=1e-5, abs=1e-6)


any_cases = st.tuples(
    workloads(max_classes=2, longest=150),
    servers(st.one_of(affine_times(), general_times())).map(roomy),
)


@settings(max_examples=15)
@given(any_cases)
def test_every_answer_is_the_boundary(case):
    """Put back, it leaves no margin; the next whole number beyond is unstable."""
    workload, server = case
    for query in QUERIES:
        if query == "bandwidth" and not margin_derivatives(workload, server)[0]["per_kv_token_s"]:
            continue
        try:
            found = capacity(workload, server, query, "c0" if query == "output" else None)
        except InfeasibleError:
            assert not stability(workload, server).stable
            continue
        assert found.binding in ("compute", "memory")
        assert found.margin >= 0
        if query in ("rate", "overhead_s", "bandwidth"):
            assert found.margin == 0
        if query == "servers" and found.value > 1:
            fewer = workload.scaled(1 / (found.value - 1))
            assert not stability(fewer, server).stable
        if query == "output":
            first = workload.classes[0].model_copy(update={"decode_tokens": int(found.value) + 1})
            longer = workload.model_copy(update={"classes": (first, *workload.classes[1:])})
            try:
                assert not stability(longer, server).stable
            except InputError:
                assert found.binding in ("compute", "memory")


def test_general_servers_say_how_derivatives_were_found():
    server = load_server("a100-80gb-llama-2-7b")
    workload = one_class(3.0, 512, 400)
    found = capacity(workload, server, "rate")
    assert found.derivative_method == "analytic; rates and memory by central differences"
    # On the boundary L is 1 and homogeneous of degree 1 in the rates (Euler).
    assert found.derivatives["rate_per_s[only]"] * found.value == pytest.approx(-1, rel=1e-5)
    step = 1e-5
    tau = server.iteration_time
    shifted = with_time(server, seconds_knots=tuple(s + step for s in tau.seconds_knots))
    at = workload.at_rate(found.value)
    difference = (stability(at, shifted).margin - stability(at, server).margin) / step
    assert found.derivatives["overhead_s"] == pytest.approx(difference, rel=1e-2)
    assert found.derivatives["kv_tokens"] >= 0


def test_known_answers():
    """THEORY 6.4: 2.741/s; the memory of n requests per stage is n·m."""
    server = load_server("paper-long-decode")
    workload = one_class(2.6, 512, 1000)
    rate = capacity(workload, server, "rate")
    assert rate.value == pytest.approx(2.741, rel=0.002)
    assert (rate.unit, rate.today, rate.binding) == ("requests/s", 2.6, "compute")
    at_limit = capacity(workload.at_rate(rate.value), server, "kv_tokens")
    assert at_limit.value == pytest.approx(137_000, abs=1)
    assert capacity(workload.at_rate(2.5 * rate.value), server, "servers").value == 3
    assert capacity(workload.at_rate(rate.value), server, "servers").value == 1
    assert capacity(workload.at_rate(rate.value), server, "output").value in (999, 1000)


@pytest.mark.parametrize(
    ("query", "name", "told"),
    [
        ("speed", None, "one of rate, kv_tokens, overhead_s, bandwidth, servers, output"),
        ("rate", "c0", "only with query output"),
        ("output", "c9", "one of only"),
    ],
)
def test_bad_queries(query, name, told):
    with pytest.raises(InputError, match=told):
        capacity(one_class(1.0, 10, 10), server_of(IterationTime.paper(0.01, 1e-7)), query, name)


def test_what_no_change_can_save():
    server = server_of(IterationTime.affine(0.01, per_prefill_token_s=1e-3))
    heavy = one_class(10.0, 1000, 10)
    for query in ("kv_tokens", "overhead_s", "bandwidth", "output"):
        with pytest.raises(InfeasibleError, match="multiply all rates by less than") as caught:
            capacity(heavy, server, query)
        assert caught.value.cause == "compute"
        assert caught.value.max_scale == pytest.approx(0.1, rel=0.05)
    with pytest.raises(InputError, match="decode stages"):
        capacity(one_class(1.0, 10, 1), server, "bandwidth")
    unfit = Workload(name="unfit", classes=one_class(1.0, 10**6, 1).classes)
    with pytest.raises(InputError, match="at its end"):
        capacity(unfit, server, "output")
