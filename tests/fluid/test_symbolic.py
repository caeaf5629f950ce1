"""The derivation in symbols against the numbers, and against the paper's own formulas."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp
from hypothesis import given

from fluid.server import load_server
from fluid.stages import class_stages, linear_stage_seconds
from fluid.steady.equilibrium import equilibrium
from fluid.steady.stability import stability
from fluid.symbolic.steady import (
    CAPACITY,
    DECODE,
    DURATION,
    KV,
    OUTPUT,
    OVERHEAD,
    PER_MEMORY,
    PREFILL,
    PROMPT,
    SQUARE,
    TOKEN,
    balance_equations,
    class_symbols,
    equilibrium_forms,
    latex_forms,
    memory_sum,
    numeric,
    paper_load_limit,
    paper_memory,
    work,
)
from tests.support.fluid_strategies import affine_times, servers, workloads

CLASSES = 4
KNOWN = class_symbols(CLASSES)
FORMS = equilibrium_forms(CLASSES)
ARGUMENTS = [OVERHEAD, CAPACITY, KNOWN.rates, KNOWN.works, KNOWN.memory_sums, KNOWN.outputs]
COMPILED = {name: numeric(ARGUMENTS, form) for name, form in vars(FORMS).items()}


def _convention(one, server) -> str:
    if one.prefill_tokens == 0:
        return "decode-only"
    return "engine" if server.first_token == "prefill" else "paper"


STAGE_FORMS = {
    name: (
        numeric([PROMPT, OUTPUT], memory_sum(name)),
        numeric([PROMPT, OUTPUT, TOKEN, KV, PREFILL, DECODE, SQUARE], work(name)),
    )
    for name in ("engine", "paper", "decode-only")
}


@given(workloads(), servers(affine_times()))
def test_stage_sums(workload, server):
    server = server.model_copy(update={"block_tokens": 1})
    tau = server.iteration_time
    for one in workload.classes:
        memory, seconds = STAGE_FORMS[_convention(one, server)]
        sizes = (one.prefill_tokens + one.context_tokens, one.decode_tokens)
        stages = class_stages(one, server)
        assert memory(*sizes) == stages.memory_sum
        summed = linear_stage_seconds(stages, server, tau.last_slope_s).sum()
        terms = (
            tau.per_kv_token_s,
            tau.per_prefill_token_s,
            tau.per_decode_request_s,
            tau.per_prefill_token_sq_s,
        )
        assert seconds(*sizes, tau.last_slope_s, *terms) == pytest.approx(summed, rel=1e-9)


@given(workloads(max_classes=CLASSES), servers(affine_times()))
def test_closed_forms(workload, server):
    server = server.model_copy(update={"kv_capacity_tokens": 200_000})
    tau = server.iteration_time
    stages = [class_stages(one, server) for one in workload.classes]

    def padded(values) -> list[float]:
        return [*values, *[0.0] * (CLASSES - len(stages))]

    works = [linear_stage_seconds(one, server, tau.last_slope_s).sum() for one in stages]
    arguments = (
        tau.overhead_s,
        server.usable_kv_tokens,
        padded(one.rate_per_s for one in workload.classes),
        padded(works),
        padded(one.memory_sum for one in stages),
        padded(one.decode_tokens for one in workload.classes),
    )
    found = equilibrium(workload, server)
    boundary = stability(workload, server)
    assert COMPILED["max_scale"](*arguments) == pytest.approx(found.max_scale, rel=1e-9)
    half_space = COMPILED["half_space"](*arguments)[: len(stages)]
    np.testing.assert_allclose(boundary.half_space_per_s, half_space, rtol=1e-9)
    if found.iteration_time_s is not None:
        assert COMPILED["iteration_time"](*arguments) == pytest.approx(
            found.iteration_time_s, rel=1e-9
        )
        assert COMPILED["memory"](*arguments) == pytest.approx(found.kv_tokens, rel=1e-9)
    if found.stable:
        assert COMPILED["throughput"](*arguments) == pytest.approx(found.throughput_tokens_per_s)
        inventory = COMPILED["inventory"](*arguments)[: len(stages)]
        assert [one.in_service_per_stage for one in found.classes] == pytest.approx(inventory)


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_forms_of_theory_2(classes):
    known, forms = class_symbols(classes), equilibrium_forms(classes)
    load = sum(rate * one for rate, one in zip(known.rates, known.works, strict=True))
    memory = sum(rate * one for rate, one in zip(known.rates, known.memory_sums, strict=True))
    assert sp.simplify(forms.iteration_time - OVERHEAD / (1 - load)) == 0
    assert sp.simplify(forms.memory - OVERHEAD * memory / (1 - load)) == 0
    assert sp.simplify(1 / forms.max_scale - load - OVERHEAD * memory / CAPACITY) == 0
    for a, w, m in zip(forms.half_space, known.works, known.memory_sums, strict=True):
        assert sp.simplify(a - w - OVERHEAD * m / CAPACITY) == 0


def test_papers_special_case():
    load = sp.Symbol("X", positive=True)
    expected = OVERHEAD * load / (1 - PER_MEMORY * load)
    assert sp.simplify(paper_memory() - expected) == 0
    limit = paper_load_limit()
    assert sp.simplify(limit - CAPACITY / (OVERHEAD + PER_MEMORY * CAPACITY)) == 0
    assert sp.simplify(paper_memory().subs(load, limit) - CAPACITY) == 0


def test_memory_sums_of_theory_2():
    for name, count, start in (
        ("engine", OUTPUT, PROMPT),
        ("paper", OUTPUT + 1, PROMPT),
        ("decode-only", OUTPUT, PROMPT + 1),
    ):
        assert sp.simplify(memory_sum(name) - count * (start + (count - 1) / 2)) == 0


@pytest.mark.parametrize(
    ("rate_per_s", "kv_tokens"), [(50, 34_377), (60, 55_758), (70, 100_327), (80, 250_509)]
)
def test_papers_chat_table_from_its_memory_sum(rate_per_s, kv_tokens):
    """THEORY 6.1 with m = 28,215.3 of the full sample."""
    tau = load_server("paper-lmsys").iteration_time
    load = sp.Symbol("X", positive=True)
    memory = numeric([OVERHEAD, PER_MEMORY, load], paper_memory())
    found = memory(tau.overhead_s, tau.per_kv_token_s, rate_per_s * 28_215.3)
    assert found == pytest.approx(kv_tokens, rel=2.5e-4)


def test_papers_crossing_from_its_memory_sum():
    server = load_server("paper-lmsys")
    tau = server.iteration_time
    limit = numeric([OVERHEAD, PER_MEMORY, CAPACITY], paper_load_limit())
    crossing = limit(tau.overhead_s, tau.per_kv_token_s, server.usable_kv_tokens) / 28_215.3
    assert crossing == pytest.approx(74.1, abs=0.3)


def test_latex_of_every_form():
    forms = latex_forms(2)
    assert set(vars(FORMS)) < set(forms)
    assert forms["throughput"] == r"l'_{1} \lambda_{1} + l'_{2} \lambda_{2}"
    assert all(forms.values())


def test_the_forms_satisfy_the_balance_that_was_put_in() -> None:
    flows, time = balance_equations(2)
    forms = equilibrium_forms(2)
    found = dict(zip((flow.lhs for flow in flows), forms.inventory, strict=True))
    found[DURATION] = forms.iteration_time
    for equation in (*flows, time):
        assert sp.simplify((equation.lhs - equation.rhs).subs(found)) == 0
