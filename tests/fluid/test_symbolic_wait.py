"""Symbols of WAIT and Nested WAIT against the numeric code and against plain sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from fluid.steady.derivatives import margin_derivatives as numeric_derivatives
from fluid.steady.stability import stability
from fluid.symbolic.steady import (
    CAPACITY,
    OVERHEAD,
    PROMPT,
    class_symbols,
    equilibrium_forms,
    numeric,
)
from fluid.symbolic.wait import (
    DELTA,
    RATIO,
    SCALED_HORIZON,
    SHARE,
    THETA,
    latex_forms,
    margin_derivatives,
    nested_forms,
    segment_symbols,
    theta_bound,
    theta_equation,
    wait_forms,
    wait_symbols,
)
from tests.support.fluid_strategies import affine_times, roomy, servers, workloads
from thresholds.solvers.wait.batch import full_batch

CLASSES, SEGMENTS = 3, 4
KNOWN = class_symbols(CLASSES)
THRESHOLDS, STAGES = wait_symbols(CLASSES)
FORMS = wait_forms(CLASSES)
ARGUMENTS = [OVERHEAD, KNOWN.rates, KNOWN.works, KNOWN.memory_sums, THRESHOLDS, STAGES]
COMPILED = {name: numeric(ARGUMENTS, form) for name, form in vars(FORMS).items()}
EDGE = segment_symbols(SEGMENTS)
NESTED_ARGUMENTS = [
    PROMPT,
    EDGE.thresholds,
    EDGE.outputs,
    EDGE.rates,
    EDGE.exponents,
    OVERHEAD,
    SCALED_HORIZON,
    DELTA,
]
NESTED = {
    name: {
        field: numeric(NESTED_ARGUMENTS, form)
        for field, form in vars(nested_forms(SEGMENTS, name)).items()
    }
    for name in ("engine", "paper")
}
EQUATION = numeric([THETA, RATIO, SHARE], theta_equation())
BOUND = numeric([RATIO, SHARE], theta_bound())


@settings(max_examples=1000)
@given(
    workloads(max_classes=CLASSES),
    servers(affine_times()).map(roomy),
    st.lists(st.integers(1, 500), min_size=CLASSES, max_size=CLASSES),
    st.floats(1e-6, 1),
    st.sampled_from([0.1, 1.0, 10.0]),
)
def test_literal_wait(workload, server, thresholds, scale, clock):
    """Drift, memory and latency of THEORY 3.2 and 3.5, slow to fast arrivals, rescaled time."""
    batch = full_batch(workload.scaled(scale), server)
    m = len(workload.classes)
    n = np.array(thresholds[:m], dtype=float)
    tau = server.iteration_time
    rows = (batch.rates_per_s, batch.work_seconds(tau.last_slope_s), batch.memory_tokens)
    rows = (rows[0] / clock, rows[1] * clock, rows[2], n, batch.stages)
    # Classes that are absent: no rate would divide by 0, so they get a rate and no work.
    padded = [
        np.append(row, [fill] * (CLASSES - m))
        for row, fill in zip(rows, (1, 0, 0, 1, 1), strict=True)
    ]
    values = {name: form(tau.overhead_s * clock, *padded) for name, form in COMPILED.items()}
    assert values["iteration_time"] == pytest.approx(clock * float(batch.iteration_time_s(n)))
    assert values["memory"] == pytest.approx(float(batch.memory(n)))
    loads = np.array(values["loads"][:m])
    np.testing.assert_allclose(loads, batch.loads(n), rtol=1e-9)
    drift = np.array(values["drift"][:m])
    np.testing.assert_allclose(drift, n * (loads - 1), rtol=1e-6, atol=1e-9 * n.max())
    latency_s = batch.latency_s(n)
    near = np.abs(loads - 1) < 1e-6
    expected = np.where(loads < 1, latency_s, np.nan)
    given_s = np.where(loads < 1, np.array(values["latency"][:m]) / clock, np.nan)
    np.testing.assert_allclose(given_s[~near], expected[~near], rtol=1e-8)


@settings(max_examples=1000)
@given(
    workloads(max_classes=CLASSES), servers(affine_times()).map(roomy), st.floats(1e-6, 0.999999)
)
def test_the_least_thresholds_are_the_fluid_inventory(workload, server, utilisation):
    """Equality in every drift condition gives n* of THEORY 2.2, from λ → 0 to ρ → 1."""
    batch = full_batch(workload, server)
    work = batch.work_seconds(server.iteration_time.last_slope_s)
    busy = float(batch.rates_per_s @ work)
    rates = batch.rates_per_s * (utilisation / busy if busy > 1e-9 else 1.0)
    m = len(rates)
    padding = [0.0] * (CLASSES - m)
    rows = [np.append(row, padding) for row in (rates, work, batch.memory_tokens)]
    ones = np.ones(CLASSES)
    overhead_s = server.iteration_time.overhead_s
    least = np.array(COMPILED["least_thresholds"](overhead_s, *rows, ones, ones))[:m]
    np.testing.assert_allclose(least, rates * overhead_s / (1 - rates @ work), rtol=1e-6)


_ALL = [*KNOWN.rates, *KNOWN.works, *KNOWN.memory_sums, OVERHEAD, CAPACITY]
DERIVATIVES = {name: numeric(_ALL, form) for name, form in margin_derivatives(CLASSES).items()}
MARGIN = numeric(_ALL, 1 - 1 / equilibrium_forms(CLASSES).max_scale)


@settings(max_examples=300)
@given(workloads(max_classes=CLASSES), servers(affine_times()).map(roomy))
def test_margin_derivatives(workload, server):
    """Symbols of 2.3 against `fluid.steady.derivatives`."""
    batch = full_batch(workload, server)
    padding = [0.0] * (CLASSES - len(batch.rates_per_s))
    rows = (batch.rates_per_s, batch.work_seconds(server.iteration_time.last_slope_s))
    values = [one for row in (*rows, batch.memory_tokens) for one in (*row.tolist(), *padding)] + [
        server.iteration_time.overhead_s,
        float(server.usable_kv_tokens),
    ]
    found, _ = numeric_derivatives(workload, server)

    def at(name: str) -> float:
        return float(DERIVATIVES[name](*values))

    assert set(DERIVATIVES) == {str(one) for one in _ALL}
    assert at("C") == pytest.approx(found["kv_tokens"])
    assert at("d_0") == pytest.approx(found["overhead_s"])
    for k, one in enumerate(workload.classes):
        assert at(f"lambda_{k + 1}") == pytest.approx(found[f"rate_per_s[{one.name}]"])
        assert at(f"m_{k + 1}") < 0
    assert stability(workload, server).margin == pytest.approx(
        float(MARGIN(*values)), rel=1e-9, abs=1e-9
    )


@settings(max_examples=1000)
@given(
    st.sampled_from(["engine", "paper"]),
    st.integers(1, 4000),
    st.lists(st.integers(1, 300), min_size=SEGMENTS, max_size=SEGMENTS, unique=True),
    st.lists(st.floats(0.01, 50), min_size=SEGMENTS, max_size=SEGMENTS),
    st.lists(st.floats(0.01, 5), min_size=SEGMENTS - 1, max_size=SEGMENTS - 1),
)
def test_nested_memory_is_the_sum_over_stages(name, prompt, outputs, thresholds, exponents):
    """THEORY 4.4 by counting stages one by one, and its δ and s̄; 4.5 term by term."""
    lengths = sorted(outputs)
    rates = [float(SEGMENTS - k) for k in range(SEGMENTS)]
    d0, horizon, delta = 0.01, 3600.0, 0.01
    arguments = (prompt, thresholds, lengths, rates, exponents, d0, horizon, delta)
    counted, closed, start = 0.0, 0.0, 0
    shift = 1 if name == "engine" else 0
    for n, end in zip(thresholds, (one + 1 - shift for one in lengths), strict=True):
        counted += n * sum(prompt + s for s in range(start, end))
        start = end
    for k, n in enumerate(thresholds):
        if k == 0:
            width, middle = lengths[0] + 1 - shift, (lengths[0] - shift) / 2
        else:
            width = lengths[k] - lengths[k - 1]
            middle = (lengths[k - 1] + 1 + lengths[k]) / 2 - shift
        closed += n * (prompt + middle) * width
    assert NESTED[name]["memory"](*arguments) == pytest.approx(counted, rel=1e-9)
    assert closed == pytest.approx(counted, rel=1e-9)
    log = math.log(SEGMENTS * (1 + horizon / d0) / delta)
    buffer = sum(
        (prompt + lengths[k - 1]) * (thresholds[k] + log / exponents[k - 1])
        for k in range(1, SEGMENTS)
    )
    assert NESTED[name]["buffer"](*arguments) == pytest.approx(buffer)
    slack = [
        rates[k] / rates[k - 1] - thresholds[k] / thresholds[k - 1] for k in range(1, SEGMENTS)
    ]
    assert NESTED[name]["pair_conditions"](*arguments) == pytest.approx(tuple(slack))


@settings(max_examples=1000)
@given(st.floats(0.01, 0.98), st.floats(0.01, 0.99), st.integers(1, 1000))
def test_theta(share, way, before):
    """The root solves the printed equation for any size, and lies above its bound (THEORY 4.5)."""
    ratio = share + way * (1 - share)
    bound = BOUND(ratio, share)
    # θ·r − ln(…) rises from 0 and falls beyond its root, below ln(1/p)/(1 − r).
    high = 2 * bound + math.log(1 / share) / (1 - ratio) + 1
    root = brentq(EQUATION, bound * (1 - 1e-9), high, args=(ratio, share), xtol=1e-13)
    assert root >= bound * (1 - 1e-9)
    after = ratio * before
    moment = -root * after + before * math.log(1 - share + share * math.exp(root))
    assert moment == pytest.approx(0, abs=1e-8 * before)


def test_forms_of_theory_3_and_4():
    rate, n = KNOWN.rates[0], THRESHOLDS[0]
    duration = FORMS.iteration_time
    expected = (
        (n - 1) / (2 * rate)
        + (STAGES[0] - 1) * n / rate
        + duration
        + rate * duration / (2 * rate * (n - rate * duration))
    )
    assert sp.simplify(FORMS.latency[0] - expected) == 0
    assert sp.simplify(theta_bound() - 8 * (RATIO - SHARE)) == 0
    assert all(sp.Poly(row, *THRESHOLDS).is_linear for row in FORMS.drift)
    assert sp.simplify(theta_equation().subs(RATIO, SHARE).series(THETA, 0, 2).removeO()) == 0


def test_latex_of_every_form():
    forms = latex_forms(2, 2)
    assert r"\log" in forms["theta_equation"]
    assert forms["wait memory"] == "m_{1} n_{1} + m_{2} n_{2}"
    assert {"nested buffer", "margin by C", "theta_bound"} < set(forms)
