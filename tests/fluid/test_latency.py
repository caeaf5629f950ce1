"""Latency laws (THEORY 9): symmetries, limits, the affine theory, and refusals."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fluid.errors import InfeasibleError, InputError
from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.steady.fluctuation import fluctuation
from fluid.steady.latency.onset import eviction_onset_per_s
from fluid.steady.latency.predict import latency
from fluid.steady.latency.result import ClassLatency, Latency
from fluid.steady.latency.rule import BatchRule
from fluid.steady.stability import largest_scale
from fluid.workload import RequestClass, Requests, Workload
from tests.support.builders import one_class
from tests.support.builders import server as server_of
from tests.support.latency_cases import drawn_case, mix

RULES = [BatchRule.greedy(), BatchRule.vllm_v1(), BatchRule.sarathi(cap=1000)]

CHAT = mix("chat", (512, 120, 0.7), (1500, 250, 0.1), (100, 60, 0.2))

A100 = load_server("a100-80gb-llama-2-7b")

AFFINE = server_of(IterationTime.affine(0.01, 4e-5, 2e-7), kv_capacity_tokens=3_000_000)


def at(level: float, workload: Workload, server: Server) -> Workload:
    """The mix at a share of its fluid limit."""
    return workload.scaled(level * largest_scale(workload, server))


def figures(one: ClassLatency) -> list[float]:
    """All figures of a class in one row."""
    found = [one.ttft_s, one.latency_s, *([one.tpot_s] if one.tpot_s else [])]
    return [value for each in found for value in vars(each).values()]


def all_of(found: Latency) -> ClassLatency:
    """The pooled figures, which must be there."""
    assert found.pooled is not None, found.refusal
    return found.pooled


@pytest.mark.parametrize("rule", RULES, ids=["greedy", "vllm-v1", "sarathi"])
@pytest.mark.parametrize("factor", [1 / 7, 1000.0])
def test_another_unit_of_time(rule: BatchRule, factor: float) -> None:
    """All seconds times a factor and rates divided by it: every answer is multiplied."""
    load = at(0.6, CHAT, A100)
    tau = A100.iteration_time
    seconds = {
        name: getattr(tau, name) * factor
        for name in type(tau).model_fields
        if name.startswith("per_")
    }
    scaled = tau.model_copy(
        update=seconds | {"seconds_knots": tuple(one * factor for one in tau.seconds_knots)}
    )
    slow = A100.model_copy(update={"iteration_time": scaled})
    one = all_of(latency(load, A100, rule))
    other = all_of(latency(load.scaled(1 / factor), slow, rule))
    np.testing.assert_allclose(figures(other), np.multiply(figures(one), factor), rtol=2e-3)


@pytest.mark.parametrize("rule", RULES, ids=["greedy", "vllm-v1", "sarathi"])
def test_order_of_classes_does_not_matter(rule: BatchRule) -> None:
    load = at(0.7, CHAT, A100)
    turned = load.model_copy(update={"classes": load.classes[::-1]})
    one, other = latency(load, A100, rule), latency(turned, A100, rule)
    np.testing.assert_allclose(figures(all_of(one)), figures(all_of(other)), rtol=1e-6)
    for mine, yours in zip(one.classes, other.classes[::-1], strict=True):
        np.testing.assert_allclose(figures(mine), figures(yours), rtol=1e-6)


@pytest.mark.parametrize("rule", RULES, ids=["greedy", "vllm-v1", "sarathi"])
def test_equal_classes_are_one_class(rule: BatchRule) -> None:
    load = at(0.7, CHAT, A100)
    first = load.classes[0]
    halves = [
        first.model_copy(update={"name": name, "rate_per_s": first.rate_per_s * share})
        for name, share in (("a", 0.3), ("b", 0.7))
    ]
    split = load.model_copy(update={"classes": (*halves, *load.classes[1:])})
    one, other = latency(load, A100, rule), latency(split, A100, rule)
    np.testing.assert_allclose(figures(all_of(one)), figures(all_of(other)), rtol=2e-3)
    np.testing.assert_allclose(figures(other.classes[0]), figures(other.classes[1]), rtol=1e-6)


@given(
    level=st.floats(0.35, 0.9),
    prompt=st.integers(20, 900),
    output=st.integers(20, 400),
    share=st.floats(0.05, 0.95),
    convention=st.sampled_from(["prefill", "decode"]),
)
@settings(max_examples=20, deadline=None)
def test_affine_servers_have_the_second_order_theory(
    level: float, prompt: int, output: int, share: float, convention: str
) -> None:
    """Within half a percent of THEORY 2.7, which is exact there up to idling."""
    server = AFFINE.model_copy(update={"first_token": convention})
    load = at(level, mix("two", (prompt, output, share), (300, 150, 1 - share)), server)
    exact, found = fluctuation(load, server), latency(load, server)
    assume(found.pooled is not None and found.validity is not None)
    residents = exact.iteration_time_s * sum(
        one.rate_per_s * one.decode_tokens for one in load.classes
    )
    assume(residents > 12)
    assume(found.validity.relative_spread < 1)
    assert all_of(found).ttft_s.mean == pytest.approx(exact.ttft_s, rel=5e-3)
    assert all_of(found).latency_s.mean == pytest.approx(exact.latency_s, rel=5e-3)
    assert found.iteration_s.mean == pytest.approx(exact.iteration_time_s, rel=5e-3)
    assert found.kv_tokens.mean == pytest.approx(exact.kv_mean_tokens, rel=5e-3)
    assert found.kv_tokens.sd == pytest.approx(exact.kv_sd_tokens, rel=5e-3)
    for mine, yours in zip(found.classes, exact.classes, strict=True):
        assert mine.latency_s.mean == pytest.approx(yours.latency_s, rel=1e-2)


def test_prompts_alone_are_a_batch_queue() -> None:
    """One output token, f affine: τ' = d0 + w·Poisson(λτ), so that mean and variance are exact."""
    server = server_of(IterationTime.affine(0.01, 4e-5), kv_capacity_tokens=3_000_000)
    load = one_class(20.0, 400, 1)
    work = 20.0 * 400 * 4e-5
    mean_s = 0.01 / (1 - work)
    variance = 20.0 * mean_s * (400 * 4e-5) ** 2 / (1 - work**2)
    found = latency(load, server)
    chain = fluctuation(load, server)
    assert chain.iteration_time_s == pytest.approx(mean_s)
    empty = math.exp(-20.0 * 0.01)
    assert found.iteration_s.mean > mean_s  # what does no work is left out
    assert chain.iteration_time_sd_s**2 == pytest.approx(variance)
    assert 0 < empty < 1
    assert all_of(found).tpot_s is None
    assert all_of(found).ttft_s == all_of(found).latency_s


def test_a_flat_f_is_an_infinite_server() -> None:
    """Every iteration lasts d0: KV is Poisson in the stages, and a request takes S of them."""
    server = server_of(IterationTime.affine(0.02), kv_capacity_tokens=3_000_000)
    found = latency(one_class(30.0, 100, 50), server)
    held = np.arange(100, 150)
    assert found.kv_tokens.mean == pytest.approx(0.6 * held.sum(), rel=1e-6)
    assert found.kv_tokens.sd**2 == pytest.approx(0.6 * (held**2).sum(), rel=1e-3)
    assert found.iteration_s.sd == pytest.approx(0, abs=1e-6)
    assert all_of(found).ttft_s.mean == pytest.approx(1.5 * 0.02, rel=1e-3)
    assert all_of(found).tpot_s.mean == pytest.approx(0.02, rel=1e-3)
    assert all_of(found).latency_s.p99 == pytest.approx(50.99 * 0.02, rel=0.01)


@pytest.mark.parametrize("rule", RULES, ids=["greedy", "vllm-v1", "sarathi"])
def test_alone_on_the_server(rule: BatchRule) -> None:
    """With hardly any load a request finds nobody: its chunks, then decodes of one token."""
    found = all_of(latency(one_class(1e-4, 600, 40), A100, rule))
    tau = A100.iteration_time
    chunks = [600] if rule.budget_tokens in (None, 2048) else [512, 88]
    done, prefill_s = 0, 0.0
    for chunk in chunks:
        prefill_s += float(
            tau(chunk, prefill_tokens_sq=chunk**2, prefill_context_tokens=chunk * done)
        )
        done += chunk
    decode_s = np.mean([float(tau(1, kv_tokens=600 + s, decode_requests=1)) for s in range(1, 40)])
    assert found.ttft_s.mean == pytest.approx(prefill_s, rel=2e-2)
    assert found.tpot_s.mean == pytest.approx(decode_s, rel=1e-2)
    assert found.ttft_s.p50 == pytest.approx(prefill_s, rel=2e-2)


def test_hardly_any_load_has_iterations_of_one_request() -> None:
    """Even where the share of empty iterations is 1 in double precision."""
    found = latency(mix("rare", (512, 30, 1e-15)), A100)
    usual = latency(mix("seldom", (512, 30, 1e-5)), A100)
    tau = A100.iteration_time
    assert found.iteration_s is not None
    assert usual.iteration_s is not None
    assert tau.overhead_s < found.iteration_s.mean < tau(512, prefill_tokens=512)
    assert found.iteration_s.mean == pytest.approx(usual.iteration_s.mean, rel=0.02)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", RULES[:2], ids=["greedy", "vllm-v1"])
def test_more_load_takes_longer(rule: BatchRule, seed: int) -> None:
    case = drawn_case(seed)
    limit = largest_scale(case.workload, case.server)
    found = [
        latency(case.workload.scaled(limit * level), case.server, rule) for level in (0.2, 0.4, 0.6)
    ]
    rows = np.array([[all_of(one).latency_s.mean, all_of(one).ttft_s.mean] for one in found])
    assert (np.diff(rows, axis=0) > 0).all()
    for one in found:
        for each in (all_of(one), *one.classes):
            for quantity in (each.ttft_s, each.latency_s):
                assert 0 < quantity.p50 < quantity.p90 < quantity.p99


def test_a_wide_budget_is_no_budget() -> None:
    """Chunks as large as anything that arrives are whole prompts."""
    load = at(0.6, CHAT, A100)
    whole = all_of(latency(load, A100))
    wide = all_of(latency(load, A100, BatchRule(budget_tokens=10_000)))
    np.testing.assert_allclose(
        [wide.ttft_s.mean, wide.latency_s.mean, wide.tpot_s.mean],
        [whole.ttft_s.mean, whole.latency_s.mean, whole.tpot_s.mean],
        rtol=1e-2,
    )


def test_decode_only_servers_have_no_budget() -> None:
    load = one_class(3.0, 0, 100, context=500)
    one, other = (latency(load, A100, rule) for rule in (BatchRule.greedy(), BatchRule.vllm_v1()))
    assert figures(all_of(one)) == figures(all_of(other))


@pytest.mark.parametrize(
    ("level", "memory", "rule", "words"),
    [
        (1.5, 1, BatchRule(), "KV tokens on average|more work"),
        (0.99, 1, BatchRule(), "memory is full"),
        (0.9, 1000, BatchRule(budget_tokens=150), "token budget"),
    ],
)
def test_no_figures_where_they_would_mean_nothing(
    level: float, memory: int, rule: BatchRule, words: str
) -> None:
    server = A100.model_copy(update={"kv_capacity_tokens": memory * A100.kv_capacity_tokens})
    found = latency(at(level, CHAT, server), server, rule)
    assert found.pooled is None
    assert found.document()["ttft_s"] is None
    assert re.search(words, str(found))
    with pytest.raises(InfeasibleError):
        found.plot()


def test_a_hundred_million_requests_in_an_iteration_have_figures_or_a_reason() -> None:
    server = Server(
        name="vast",
        source="test",
        kv_capacity_tokens=402_446_719_407,
        block_tokens=32,
        first_token="decode",
        iteration_time=IterationTime(
            tokens_knots=(0.0, 515.0, 249_414.0, 250_339.0),
            seconds_knots=(0.0666, 0.0859131, 0.08591363, 0.0859137),
        ),
    )
    load = Workload.of(long=Requests(123.8, 73, 4253), short=Requests(1.33e7, 1, 3))
    refusals = 0
    for level in (0.1, 0.5, 0.9):
        found = latency(at(level, load, server), server)
        refusals += found.refusal is not None
        if found.pooled is None:
            assert "too many decades apart" in str(found)
        else:
            assert math.isfinite(found.pooled.latency_s.p99)
    assert refusals < 3


def test_conditions_that_fail_are_said() -> None:
    load = at(0.6, CHAT, A100)
    mean = all_of(latency(load, A100)).latency_s.mean * load.rate_per_s
    tight = latency(load, A100, BatchRule(seats=int(2.2 * mean)))
    assert tight.validity.scope == "nothing"
    assert any("seats" in one for one in tight.validity.sentences())
    assert "wait for seats" in str(latency(load, A100, BatchRule(seats=int(mean))).refusal)
    fine = latency(at(0.3, CHAT, A100), A100)
    assert fine.validity.scope == "all"
    assert fine.validity.expected_error == 0.05


def test_a_budget_that_is_mostly_used_up_is_said() -> None:
    """Prompts of 512 tokens in chunks of 512 near the limit; with room the answer is unflagged."""
    load = at(0.85, mix("short", (512, 20, 1.0)), A100)
    tight = latency(load, A100, BatchRule(budget_tokens=512)).validity
    assert tight.budget_full_share > 0.4
    assert tight.scope == "means"
    assert any("token budget is used up" in one for one in tight.sentences())
    roomy = latency(load, A100, BatchRule(budget_tokens=2048)).validity
    assert roomy.budget_full_share < 0.4
    assert roomy.expected_error < tight.expected_error
    assert roomy.scope == "all"


def test_refusals() -> None:
    paper = load_server("paper-lmsys")
    with pytest.raises(InputError, match="first_token"):
        latency(one_class(1.0, 100, 10), paper, BatchRule.vllm_v1())
    with pytest.raises(InputError, match="seats"):
        BatchRule(seats=0)
    with pytest.raises(InputError, match="watermark_fraction"):
        BatchRule(watermark_fraction=1.0)
    with pytest.raises(InputError, match="budget_tokens"):
        BatchRule(budget_tokens=0)


def test_onset_of_evictions_is_where_the_answer_says_so() -> None:
    onset_per_s = eviction_onset_per_s(CHAT, A100, 1e-3)
    found = latency(CHAT.at_rate(onset_per_s), A100)
    assert found.validity.overflow_probability == pytest.approx(1e-3, rel=0.3)
    assert eviction_onset_per_s(CHAT, A100, 1e-4) < onset_per_s
    roomy = A100.model_copy(update={"kv_capacity_tokens": 10**9})
    limit_per_s = largest_scale(CHAT, roomy) * CHAT.rate_per_s
    assert eviction_onset_per_s(CHAT, roomy, 1e-3) == pytest.approx(limit_per_s)
    with pytest.raises(InputError, match="probability"):
        eviction_onset_per_s(CHAT, A100, 0.0)


def test_an_answer_prints_draws_and_gives_its_data() -> None:
    found = latency(at(0.5, CHAT, A100), A100)
    assert "TTFT mean" in str(found)
    assert "<table>" in found._repr_html_()
    document = json.loads(json.dumps(found.document()))
    assert document["ttft_s"]["p99"] > document["ttft_s"]["mean"]
    assert [one["name"] for one in document["classes"]] == [one.name for one in CHAT.classes]
    columns = found.frame()
    assert {len(column) for column in columns.values()} == {4}
    assert found.plot().get_xlabel() == "seconds"


def test_one_class_prints_one_row() -> None:
    only = RequestClass(name="only", rate_per_s=1.0, prefill_tokens=100, decode_tokens=10)
    found = latency(Workload(name="w", classes=(only,)), A100)
    assert str(found).count("only") == 1
