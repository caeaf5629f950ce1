"""THEORY 9.1 in symbols against 2.7, in symbols and in numbers, and against the latency laws."""

from __future__ import annotations

from dataclasses import fields
from functools import cache

import pytest
import sympy as sp

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.stages import class_stages, linear_stage_seconds
from fluid.steady.fluctuation import fluctuation
from fluid.steady.latency.predict import latency
from fluid.symbolic.latency import (
    RATE,
    LatencyForms,
    added_symbols,
    chain_forms,
    latency_latex,
    response_forms,
)
from fluid.symbolic.steady import OVERHEAD, numeric
from fluid.workload import Requests, Workload

AFFINE = Server(
    name="affine",
    source="test",
    kv_capacity_tokens=10**7,
    iteration_time=IterationTime.affine(
        0.01, per_token_s=4e-5, per_kv_token_s=5e-7, per_decode_request_s=1e-4
    ),
)


@cache
def chain(stages: int) -> LatencyForms:
    return chain_forms(stages)


def values(forms: LatencyForms, load: Workload) -> dict[str, float]:
    """The forms at the rate of a load of one class, with what its requests add to iterations."""
    (one,) = load.classes
    stages = class_stages(one, AFFINE)
    tau = AFFINE.iteration_time
    added = linear_stage_seconds(stages, AFFINE, tau.last_slope_s)
    arguments = [OVERHEAD, RATE, added_symbols(stages.count)]
    known = {one.name: getattr(forms, one.name) for one in fields(forms)}
    return {
        name: float(numeric(arguments, form)(tau.overhead_s, one.rate_per_s, added))
        for name, form in known.items()
        if form is not None
    }


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_the_chain_and_the_response_give_the_same(stages: int) -> None:
    known, response = chain(stages), response_forms(stages)
    for one in fields(LatencyForms):
        left, right = getattr(known, one.name), getattr(response, one.name)
        assert (left is None) == (right is None) == (one.name == "tpot" and stages == 1)
        if left is not None:
            assert sp.simplify(left - right) == 0, one.name


def test_they_need_the_covariances() -> None:
    """Without them, 2.6 remains: they vanish to second order in small work, and only then."""
    (a,) = added_symbols(1)
    extra = chain(1).ttft - sp.Rational(3, 2) * chain(1).iteration_time - a
    assert sp.limit(extra / a**2, a, 0) == RATE / 2
    assert sp.simplify(extra) != 0


@pytest.mark.parametrize(("outputs", "rate_per_s"), [(1, 40.0), (2, 30.0), (3, 20.0)])
def test_numbers_are_those_of_theory_2_7(outputs: int, rate_per_s: float) -> None:
    load = Workload.of(only=Requests(rate_per_s, prompt=500, output=outputs))
    found, known = values(chain(outputs), load), fluctuation(load, AFFINE)
    assert found["iteration_time"] == pytest.approx(known.iteration_time_s)
    assert found["iteration_variance"] == pytest.approx(known.iteration_time_sd_s**2, rel=1e-6)
    assert found["ttft"] == pytest.approx(known.ttft_s, rel=1e-6)
    assert found["latency"] == pytest.approx(known.latency_s, rel=1e-6)
    if outputs > 1:
        assert found["tpot"] == pytest.approx(known.classes[0].tpot_s, rel=1e-6)


def test_the_laws_give_them_where_the_server_is_never_idle() -> None:
    load = Workload.of(only=Requests(40.0, prompt=500, output=3))
    found, law = values(chain(3), load), latency(load, AFFINE).pooled
    assert law is not None
    assert law.ttft_s.mean == pytest.approx(found["ttft"], rel=0.02)
    assert law.latency_s.mean == pytest.approx(found["latency"], rel=0.02)


def test_latex_of_every_form() -> None:
    found = latency_latex(2)
    assert set(found) == {one.name for one in fields(LatencyForms)}
    assert all(found.values())
