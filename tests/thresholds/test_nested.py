"""Nested WAIT: exponents, segments, memory, geometric program and whole thresholds."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from fluid.errors import InfeasibleError, InputError
from fluid.server import load_server
from fluid.stages import class_stages
from fluid.symbolic.steady import PROMPT, numeric
from fluid.symbolic.wait import RATIO, SHARE, THETA, nested_forms, segment_symbols, theta_equation
from fluid.workload import RequestClass, Workload
from tests.support.builders import workload
from tests.support.nested_cases import decreasing, finest, log_of, random_instance
from tests.support.nested_program import relaxed_optimum
from thresholds.solvers.nested import graph_kernel as kernel
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.nested.requirement import (
    boundary_exponent,
    feasible,
    mean_latency_s,
    nested_memory,
)
from thresholds.solvers.nested.search import aim_of
from thresholds.solvers.nested.segments import distinct_lengths

LONG_DECODE = load_server("paper-long-decode")
IMPOSSIBLE = 1e30
TWO = workload((7.0, 512, 20), (3.0, 512, 50))


def exact_exponent(ratio: float, survival: float) -> mpmath.mpf:
    """θ at 50 digits, by bisection on the equation as it is printed."""
    with mpmath.workdps(50):
        r, p = mpmath.mpf(ratio), mpmath.mpf(survival)

        def equation(theta: mpmath.mpf) -> mpmath.mpf:
            return theta * r - mpmath.log(1 - p + p * mpmath.exp(theta))

        low, high = 8 * (r - p) / 2, -mpmath.log(p) / (1 - r)
        for _ in range(160):
            middle = (low + high) / 2
            low, high = (middle, high) if equation(middle) > 0 else (low, middle)
        return low


@pytest.mark.parametrize("survival", [0.01, 0.03, 0.2, 0.5, 0.8, 0.97, 0.99])
def test_exponents_equal_mpmath(survival: float) -> None:
    gaps = [1e-6, 1e-5, 1e-3, *(way * (1 - survival) for way in (0.05, 0.4, 0.9, 0.999, 1 - 1e-9))]
    ratios = [survival + gap for gap in gaps]
    found = boundary_exponent(ratios, survival)
    for ratio, theta in zip(ratios, found, strict=True):
        exact = exact_exponent(ratio, survival)
        assert abs(mpmath.mpf(float(theta)) - exact) <= 1e-10 * max(1, exact)


@given(st.floats(0.01, 0.99), st.floats(1e-6, 1 - 1e-6))
def test_exponents_lie_between_their_bounds(survival: float, way: float) -> None:
    ratio = survival + way * (1 - survival)
    theta = float(boundary_exponent(ratio, survival))
    above = 2 * (ratio - survival) / (survival * (1 - ratio))
    assert 8 * (ratio - survival) * (1 - 1e-9) <= theta <= above * (1 + 1e-9)


def test_the_upper_bound_is_proved_by_a_derivative() -> None:
    """With r − p = θp(1 − r)/2 the printed equation has a slope of the sign that is claimed."""
    ratio = 1 - (1 - SHARE) / (1 + SHARE * THETA / 2)
    slope = -sp.diff(theta_equation().subs(RATIO, ratio), THETA)
    claimed = sp.exp(THETA) - 1 - THETA - SHARE * THETA**2 / 4
    factor = sp.simplify(slope / claimed)
    at = numeric([THETA, SHARE], factor)
    values = at(*np.meshgrid(np.linspace(0.01, 8, 40), np.linspace(0.01, 0.99, 40)))
    assert (values > 0).all()
    assert sp.limit(theta_equation().subs(RATIO, ratio), THETA, 0) == 0


def test_the_series_next_to_the_survival_is_that_of_the_equation() -> None:
    """With θ = u − (1 − 2p)u²/3 and r = p + p(1 − p)u/2 the equation holds to O(u⁴)."""
    u = sp.Symbol("u", positive=True)
    theta = u - (1 - 2 * SHARE) * u**2 / 3
    ratio = SHARE + SHARE * (1 - SHARE) * u / 2
    left = sp.expand(theta * ratio) - sp.log(1 - SHARE + SHARE * sp.exp(theta))
    assert sp.simplify(sp.series(left, u, 0, 4).removeO()) == 0


@pytest.mark.parametrize("survival", [1e-6, 0.2, 0.3, 0.75, 1 - 1e-6])
def test_exponents_go_to_zero_as_the_ratio_comes_to_the_survival(survival: float) -> None:
    """Also where they differ by rounding only, and across the end of the series."""
    gaps = survival * (1 - survival) * 10.0 ** np.arange(-13, -1)
    ratios = np.append(np.nextafter(survival, 1), survival + gaps[gaps > 1e-16])
    found = boundary_exponent(ratios, survival)
    for ratio, theta in zip(ratios, found, strict=True):
        small = 2 * (ratio - survival) / (survival * (1 - survival))
        series = small - (1 - 2 * survival) * small**2 / 3
        assert theta == pytest.approx(series, rel=small**2, abs=1e-10)
        assert kernel.inverse_exponent(ratio, survival) * theta == pytest.approx(1)
    assert (np.diff(found) > 0).all()


def test_exponents_outside_the_chain_do_not_exist() -> None:
    assert np.isnan(boundary_exponent([0.3, 0.2, 1.0, 1.2], 0.3)).all()


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_memory_equals_the_symbolic_forms(first_token: str) -> None:
    server = LONG_DECODE.model_copy(update={"first_token": first_token})
    load = workload((4.0, 100, 3), (3.0, 100, 8), (5.0, 100, 15))
    segments = finest(load, server)
    forms = nested_forms(3, "engine" if first_token == "prefill" else "paper")
    names = segment_symbols(3)
    n = [9.0, 7.0, 5.0]
    base = forms.memory.subs(dict(zip(names.thresholds, n, strict=True))).subs(
        dict(zip(names.outputs, segments.cuts.tolist(), strict=True))
    )
    memory = nested_memory(n, segments, 17.0)
    assert float(memory.base) == pytest.approx(float(base.subs(PROMPT, 100)))
    theta = boundary_exponent([7 / 9, 5 / 7], segments.survivals)
    det = 103 * 7 + 108 * 5
    assert float(memory.deterministic_buffer) == det
    stochastic = 17 * (103 / theta[0] + 108 / theta[1])
    assert float(memory.stochastic_buffer) == pytest.approx(stochastic)
    assert memory.total == memory.base + memory.buffer


@pytest.mark.parametrize("seed", range(12))
def test_segment_sums_equal_stages_one_by_one(seed: int) -> None:
    """Coarse segments, blocks and both conventions, from the stages of the longest class."""
    load, server = random_instance(seed, 5)
    ends = [1, 4]
    segments = distinct_lengths(load, server).segments(ends)
    classes = sorted(load.classes, key=lambda one: one.decode_tokens)
    cuts = [classes[one].decode_tokens for one in ends]
    for k, (low, high) in enumerate(zip([0, cuts[0]], cuts, strict=True)):
        entering = [one for one in classes if one.decode_tokens > low]
        rate = sum(one.rate_per_s for one in entering)
        worst = max(one.prefill_tokens for one in entering)
        mean = sum(one.rate_per_s * one.prefill_tokens for one in entering) / rate
        held, kv, decodes, spent = 0, 0.0, 0, 0.0
        stages = class_stages(entering[-1].model_copy(update={"prefill_tokens": worst}), server)
        for s in stages.index:
            emitted = s if server.first_token == "prefill" else max(s - 1, 0)
            if low <= emitted < high:
                held += server.block_rounded(worst + int(s))
                decodes += int(s > 0)
                kv += (mean + s) * (s > 0)
                last = [class_stages(one, server).index[-1] for one in entering]
                spent += sum(
                    one.rate_per_s for one, end in zip(entering, last, strict=True) if s <= end
                )
        assert segments.rates_per_s[k] == pytest.approx(rate)
        assert segments.memory_tokens[k] == held
        assert segments.decode_requests[k] == decodes
        assert segments.kv_tokens[k] == pytest.approx(kv)
        assert segments.mean_stages[k] == pytest.approx(spent / rate)


def test_decode_only_segments_start_with_a_decode() -> None:
    classes = tuple(
        RequestClass(
            name=f"c{output}",
            rate_per_s=1.0,
            prefill_tokens=0,
            context_tokens=630,
            decode_tokens=output,
        )
        for output in (2, 5)
    )
    segments = finest(Workload(name="d", classes=classes), LONG_DECODE)
    assert segments.memory_tokens.tolist() == [631 + 632, 633 + 634 + 635]
    assert segments.work_seconds(0.0)[0] == pytest.approx(0.26e-6 * (631 + 632))
    mixed = Workload(name="m", classes=(*classes, TWO.classes[0]))
    with pytest.raises(InputError, match="prefill_tokens in all or none"):
        distinct_lengths(mixed, LONG_DECODE)


@pytest.mark.parametrize("objective", ["latency", "memory", "slack"])
@pytest.mark.parametrize("seed", range(40))
def test_whole_thresholds_equal_enumeration(seed: int, objective: str) -> None:
    """120 instances of 1 to 3 segments; the geometric program bounds each of them."""
    count = seed % 3 + 1
    load, server = random_instance(1000 * len(objective) + seed, count)
    segments = finest(load, server)
    log = log_of(segments)
    aim = aim_of(objective, segments, log)
    largest = (3000, 330, 64)[count - 1]
    candidates = decreasing(count, largest)
    values = aim(candidates)
    best = float(values.min())
    inside = candidates[values.argmin()][0] < largest - 2
    limit = {"slack": 1.0, "memory": server.usable_kv_tokens}.get(objective, math.inf)
    if math.isinf(best) or best > limit:
        with pytest.raises(InfeasibleError):
            NestedWait(objective=objective, segments=count).solve(load, server)
        return
    table = NestedWait(objective=objective, segments=count).solve(load, server)
    n = np.array([float(one.threshold) for one in table.thresholds])
    assert feasible(n, segments, log)
    assert table.solver.objective is not None
    assert table.solver.objective == pytest.approx(float(aim(n[None])[0]))
    # A larger n_1 than was enumerated may be better still.
    assert table.solver.objective <= best * (1 + 1e-3 if objective == "slack" else 1 + 1e-9)
    if inside and objective != "slack":
        assert table.solver.objective == pytest.approx(best)
    relaxed = relaxed_optimum(segments, log, objective)
    assert relaxed is not None
    assert relaxed.is_bound
    assert relaxed.value <= table.solver.objective * (1 + 1e-6)


@pytest.mark.parametrize("objective", ["latency", "memory", "slack"])
@pytest.mark.parametrize("seed", range(6))
def test_program_equals_a_search_without_convexity(seed: int, objective: str) -> None:
    """Nelder–Mead on the program's own function of two thresholds, written with NumPy."""
    load, server = random_instance(seed, 2)
    server = server.model_copy(update={"kv_capacity_tokens": 2_000_000})
    segments = finest(load, server)
    log = log_of(segments)
    relaxed = relaxed_optimum(segments, log, objective)
    assert relaxed is not None
    (p,) = segments.survivals

    def value(logs: np.ndarray) -> float:
        n = np.exp(logs)
        load_1 = float(segments.load(n))
        if n[1] < 1 or n[0] < n[1] + 1 or n[1] <= p * n[0]:
            return IMPOSSIBLE
        inverse = p * (1 - n[1] / n[0]) / (2 * (n[1] / n[0] - p))
        needed = segments.memory_tokens @ n + segments.boundary_tokens[0] * (n[1] + log * inverse)
        fits = needed <= server.usable_kv_tokens
        if objective == "memory":
            return float(needed) if load_1 <= 1 else IMPOSSIBLE
        if not fits:
            return IMPOSSIBLE
        return load_1 if objective == "slack" else float(mean_latency_s(n, segments))

    start = np.log(relaxed.thresholds * (0.97 if objective == "slack" else 1.05))
    found = IMPOSSIBLE
    for _ in range(6):
        step = minimize(value, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
        start, found = step.x, min(found, step.fun)
    assert found >= relaxed.value * (1 - 1e-5)
    assert found == pytest.approx(relaxed.value, rel=5e-3)
