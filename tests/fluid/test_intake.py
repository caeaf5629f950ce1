"""Expected iteration time against the intake: law of the prompts, smallest balance, stage times."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import poisson

from fluid.server import Server
from fluid.stages import class_stages, linear_stage_seconds
from fluid.steady.equilibrium import equilibrium
from fluid.steady.intake import intake
from fluid.workload import RequestClass, Workload
from tests.support.builders import server as server_of
from tests.support.fluid_strategies import general_times, roomy, servers, workloads


@pytest.mark.parametrize("method", ["poisson", "mean"])
@given(workload=workloads(), server=servers(general_times()), intake_s=st.floats(1e-3, 10.0))
def test_what_a_request_adds_is_the_sum_over_its_stages(method, workload, server, intake_s):
    """Stage by stage: f with and without the tokens of one more request, and the linear terms."""
    curve = intake(workload, roomy(server), method)
    added = curve.added(intake_s)

    def token_s(extra):
        return float(curve.token_seconds(intake_s, np.array([float(extra)]))[0])

    for j, one in enumerate(workload.classes):
        stages = class_stages(one, server)
        own_s = linear_stage_seconds(stages, server, 0.0)
        for k, decodes in enumerate(stages.decodes):
            own_s[k] += token_s(1 if decodes else one.prefill_tokens) - token_s(0)
        early = slice(stages.first_output + 1)
        assert added.request_s[j] == pytest.approx(own_s.sum(), rel=1e-9, abs=1e-12)
        assert added.first_s[j] == pytest.approx(own_s[early].sum(), rel=1e-9, abs=1e-12)
        prefill_s = own_s[~stages.decodes].sum()
        assert added.prefill_s[j] == pytest.approx(prefill_s, rel=1e-9, abs=1e-12)


@given(workload=workloads(), server=servers(general_times()), factor=st.floats(0.1, 10.0))
def test_a_scaled_curve_is_that_of_the_scaled_workload(workload, server, factor):
    curve = intake(workload, roomy(server), "mean").scaled(factor)
    other = intake(workload.scaled(factor), roomy(server), "mean")
    assert curve.kv_tokens_per_s == pytest.approx(other.kv_tokens_per_s)
    for intake_s in (0.01, 0.3, 5.0):
        assert curve.time_s(intake_s) == pytest.approx(other.time_s(intake_s))


@pytest.mark.parametrize("method", ["poisson", "mean"])
@given(workload=workloads(), server=servers(general_times()))
def test_iteration_time_solves_its_equation_and_is_the_smallest_that_does(method, workload, server):
    curve = intake(workload, roomy(server), method)
    balance_s = curve.least_balance_s()
    if balance_s is None:
        below_s = np.geomspace(curve.overhead_s, 1e3, 120)
    else:
        assert curve.time_s(balance_s) == pytest.approx(balance_s, rel=1e-9)
        below_s = np.geomspace(curve.overhead_s / 2, balance_s * 0.998, 120)
    assert all(curve.time_s(one) > one for one in below_s)


@given(workloads(), servers(general_times()))
def test_mean_method_is_the_root_of_tau_of_the_mean_composition(workload, server):
    server = roomy(server)

    def excess_s(duration: float) -> float:
        return _tau_of_mean_composition(workload, server, duration) - duration

    found = equilibrium(workload, server, "mean").iteration_time_s
    # Between the knots of f the excess is a straight line, so its sign at the ends tells all.
    tokens_per_s = intake(workload, server, "mean").flow.tokens_per_s
    knots = server.iteration_time.rising.tokens_knots
    ends = [knot / tokens_per_s for knot in knots] + [1e9]
    for low, high in itertools.pairwise(sorted(set(ends))):
        if excess_s(high * (1 - 1e-12)) <= 0:
            oracle = brentq(excess_s, low * (1 + 1e-12), high * (1 - 1e-12), xtol=1e-300)
            assume(excess_s(oracle * 1.001) <= 0)  # else it may be passed as too short a dip
            assert found == pytest.approx(oracle, rel=1e-9)
            return
    assert found is None


def _tau_of_mean_composition(workload: Workload, server: Server, duration: float) -> float:
    """τ of n_js = λ_j·ΔT requests, summed class by class."""
    tokens = kv = decodes = squares = 0.0
    for one in workload.classes:
        stages = class_stages(one, server)
        each = one.rate_per_s * duration
        decoding = int(stages.decodes.sum())
        tokens += each * (one.prefill_tokens + decoding)
        kv += each * stages.kv_tokens[stages.decodes].sum()
        decodes += each * decoding
        squares += each * one.prefill_tokens**2
    tau = server.iteration_time.rising
    return float(tau(tokens, kv_tokens=kv, decode_requests=decodes, prefill_tokens_sq=squares))


@given(
    general_times(), st.integers(1, 60), st.integers(1, 60), st.floats(1e-3, 2.0), st.floats(0, 500)
)
def test_expected_token_seconds_by_summation(tau, first, second, intake_s, extra):
    """E[f] of two Poisson classes summed over the counts of both, up to 1e-15 in the tails."""
    lengths, rates = np.array([first, second]), np.array([3.0, 5.0])
    classes = tuple(
        RequestClass(
            name=str(i), rate_per_s=rates[i], prefill_tokens=int(lengths[i]), decode_tokens=4
        )
        for i in range(2)
    )
    curve = intake(Workload(name="two", classes=classes), server_of(tau), "poisson")
    counts = [np.arange(poisson.isf(1e-15, rate * intake_s) + 2) for rate in rates]
    laws = [poisson.pmf(one, rate * intake_s) for one, rate in zip(counts, rates, strict=True)]
    prompts = counts[0][:, None] * first + counts[1] * second
    tokens = prompts + 3 * rates.sum() * intake_s + extra
    tau = tau.rising
    seconds = np.maximum(tau.token_seconds(tokens), tau.overhead_s)
    # Both sums round a token count that may lie on a jump: keep away from it.
    knots = np.array(tau.tokens_knots)
    assume(np.abs(tokens[..., None] - knots).min() > 1e-6)
    found = curve.token_seconds(intake_s, np.array([extra]))
    assert found[0] == pytest.approx(float(laws[0] @ seconds @ laws[1]), rel=1e-10)
