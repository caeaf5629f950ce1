"""Fluid equilibrium: published figures, closed forms, general iteration times, limits."""

from __future__ import annotations

import bisect
import csv
import functools
import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.stages import class_stages
from fluid.steady.equilibrium import Equilibrium, equilibrium
from fluid.steady.first_order import MeanTimes
from fluid.steady.intake import Intake
from fluid.steady.overflow import overflow
from fluid.steady.stability import stability
from fluid.transient.saturated import predicted_loss
from fluid.workload import RequestClass, Workload
from tests.support.builders import one_class
from tests.support.builders import server as server_of
from tests.support.fluid_strategies import affine_times, general_times, roomy, servers, workloads

EQUATION_1 = IterationTime.paper(0.0114, 0.43e-6)


def _chat_buckets(folder: Path, rate_per_s: float) -> Workload:
    with (folder / "lmsys_chat_length_buckets.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    classes = tuple(
        RequestClass(
            name=row["decode_from_tokens"],
            rate_per_s=float(row["share"]),
            prefill_tokens=round(float(row["mean_prefill_tokens"])),
            decode_tokens=round(float(row["mean_decode_tokens"])),
        )
        for row in rows
    )
    return Workload(name="chat", classes=classes).at_rate(rate_per_s)


PAPER_TABLE = [(50, 34_377), (60, 55_758), (70, 100_327), (80, 250_509)]


@pytest.mark.parametrize(("rate_per_s", "kv_tokens"), PAPER_TABLE)
def test_memory_of_the_papers_chat_table(shared_data, rate_per_s, kv_tokens):
    found = equilibrium(_chat_buckets(shared_data, rate_per_s), load_server("paper-lmsys"))
    assert found.kv_tokens == pytest.approx(kv_tokens, rel=0.006)
    assert found.stable == (kv_tokens <= 137_000)


def test_crossing_of_the_papers_chat_table(shared_data):
    found = equilibrium(_chat_buckets(shared_data, 50), load_server("paper-lmsys"))
    assert 50 * found.max_scale == pytest.approx(74.1, abs=0.3)


APART = ("caveats", "first_order_caveats", "stages", "class_times")


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_latency_of_theory_2_6(first_token):
    """0.2753 s belongs to Eq. (1) with the paper's convention, 21 stages."""
    found = equilibrium(one_class(20.0, 512, 20), server_of(EQUATION_1, first_token))
    if first_token == "decode":
        assert found.first_order.latency_s == pytest.approx(0.2753, abs=5e-5)
        assert found.caveats == found.first_order_caveats == ()
    else:
        assert found.first_order.latency_s < 0.2753


def _simulate(workload: Workload, server: Server, requests: int, seed: int) -> tuple[float, float]:
    """Mean latency and mean iteration time of one class under greedy service without limits."""
    tau, (request,) = server.iteration_time, workload.classes
    stages = class_stages(request, server)
    generator = np.random.default_rng(seed)
    arrived = np.cumsum(generator.exponential(1 / request.rate_per_s, requests)).tolist()
    prompt = request.prefill_tokens
    token_seconds = functools.cache(lambda tokens: float(tau.token_seconds(tokens)))
    now, admitted = 0.0, 0
    residents: list[tuple[int, float]] = []
    latencies, durations = [], []
    while len(latencies) < requests:
        if not residents:
            now = max(now, arrived[admitted])
        new = arrived[admitted : bisect.bisect_right(arrived, now)]
        admitted += len(new)
        kv = sum(prompt + stage for stage, _ in residents)
        duration = (
            token_seconds(len(new) * prompt + len(residents))
            + tau.per_kv_token_s * kv
            + tau.per_prefill_token_s * len(new) * prompt
            + tau.per_decode_request_s * len(residents)
            + tau.per_prefill_token_sq_s * len(new) * prompt**2
        )
        now += duration
        durations.append(duration)
        residents = [(stage + 1, at) for stage, at in residents] + [(1, at) for at in new]
        latencies += [now - at for stage, at in residents if stage == stages.count]
        residents = [(stage, at) for stage, at in residents if stage < stages.count]
    return float(np.mean(latencies[requests // 10 :])), float(np.mean(durations))


def _interval(values: list[float]) -> tuple[float, float]:
    """99 % interval of the mean of four replications (Student's t, 3 degrees of freedom)."""
    half = 5.84 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)) - half, float(np.mean(values)) + half


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_first_order_latency_against_simulation(first_token):
    """THEORY 2.6: within 3 % where its conditions hold."""
    workload, server = one_class(20.0, 512, 20), server_of(EQUATION_1, first_token)
    low, high = _interval([_simulate(workload, server, 2000, seed)[0] for seed in range(4)])
    assert high - low < 0.02 * low
    latency_s = equilibrium(workload, server).first_order.latency_s
    assert 0.97 * low <= latency_s <= 1.03 * high


@pytest.mark.parametrize("rate_per_s", [5.0, 15.0, 20.0])
def test_poisson_prompts_against_simulation(rate_per_s):
    """THEORY 2.5: E[τ] within 10 %; τ of the mean composition falls short of both."""
    workload, server = one_class(rate_per_s, 512, 20), load_server("a100-80gb-llama-2-7b")
    low, high = _interval([_simulate(workload, server, 1500, seed)[1] for seed in range(4)])
    expected_s = equilibrium(workload, server).iteration_time_s
    assert 0.9 * low <= expected_s <= 1.1 * high
    assert equilibrium(workload, server, "mean").iteration_time_s < min(expected_s, low)


def test_hand_case():
    """τ = 1 + 0.01·(tokens held); prompt 2, outputs 3: m = 2+3+4+5 = 14, ρ = 0.5·0.14 = 0.07."""
    server = server_of(IterationTime.paper(1.0, 0.01), "decode", kv_capacity_tokens=20)
    found = equilibrium(one_class(0.5, 2, 3), server)
    duration = 1 / 0.93
    assert found.utilisation == pytest.approx(0.07)
    assert found.iteration_time_s == pytest.approx(duration)
    assert found.kv_tokens == pytest.approx(7 * duration)
    (only,) = found.classes
    assert (only.stages, only.in_service_per_stage) == (4, pytest.approx(0.5 * duration))
    assert found.first_order.ttft_s == pytest.approx(2.5 * duration + 0.02 + 0.03)
    assert found.first_order.latency_s == pytest.approx(4.5 * duration + 0.14)
    assert found.first_order.tpot_s == pytest.approx(duration + (0.04 + 0.05) / 2)
    assert found.throughput_tokens_per_s == 1.5
    assert 1 / found.max_scale == pytest.approx(0.5 * (0.14 + 14 / 20))
    assert found.binding == "memory"


def test_engine_and_decode_only_latencies():
    """The first token comes with stage 0 (prefill) or, prompt cached, with the first decode."""
    tau = IterationTime.affine(1.0, per_token_s=0.01, per_kv_token_s=0.001)
    for workload, first_s in ((one_class(0.1, 4, 3), 0.04), (one_class(0.1, 0, 3, 4), 0.015)):
        found = equilibrium(workload, server_of(tau))
        assert found.first_order.ttft_s == pytest.approx(1.5 * found.iteration_time_s + first_s)
        later = np.array([0.015, 0.016] if workload.classes[0].prefill_tokens else [0.016, 0.017])
        assert found.first_order.tpot_s == pytest.approx(found.iteration_time_s + later.mean())
        assert found.first_order.latency_s == pytest.approx(
            found.first_order.ttft_s + 2 * found.first_order.tpot_s
        )


def test_single_token_outputs_have_no_tpot():
    tau = IterationTime.affine(0.01, 1e-5)
    assert equilibrium(one_class(1.0, 100, 1), server_of(tau)).first_order.tpot_s is None
    mixed = Workload(
        name="mixed",
        classes=(
            RequestClass(name="short", rate_per_s=9.0, prefill_tokens=100, decode_tokens=1),
            RequestClass(name="long", rate_per_s=1.0, prefill_tokens=100, decode_tokens=50),
        ),
    )
    found = equilibrium(mixed, server_of(tau))
    one, other = (of_class.first_order for of_class in found.classes)
    assert one.tpot_s is None
    assert found.first_order.tpot_s == pytest.approx(other.tpot_s)
    assert found.first_order.ttft_s == pytest.approx(0.9 * one.ttft_s + 0.1 * other.ttft_s)


@given(workloads(), servers(affine_times()), st.randoms())
def test_order_of_classes_does_not_matter(workload, server, random):
    shuffled = list(workload.classes)
    random.shuffle(shuffled)
    first = equilibrium(workload, roomy(server))
    second = equilibrium(workload.model_copy(update={"classes": tuple(shuffled)}), roomy(server))
    by_name = {one.name: one for one in second.classes}
    _assert_same(first, second, skip={"workload", *APART})
    for one in first.classes:
        _assert_same(one, by_name[one.name])


def _assert_same(first, second, skip=(), rel=1e-9):
    for one in fields(first):
        if one.name in skip:
            continue
        left, right = getattr(first, one.name), getattr(second, one.name)
        if isinstance(left, float) and not isinstance(left, bool):
            assert left == pytest.approx(right, rel=rel, abs=1e-12), one.name
        elif isinstance(left, MeanTimes):
            _assert_same(left, right, rel=rel)
        else:
            assert left == right, one.name


def _faster_clock(tau: IterationTime, speed: float) -> IterationTime:
    return IterationTime(
        tokens_knots=tau.tokens_knots,
        seconds_knots=tuple(one / speed for one in tau.seconds_knots),
        **{name: value / speed for name, value in tau if name.startswith("per_")},
    )


@pytest.mark.parametrize("method", [None, "mean"])
@given(
    workload=workloads(),
    server=servers(st.one_of(affine_times(), general_times())),
    speed=st.floats(1e-4, 1e4),
)
def test_rescaled_time(method, workload, server, speed):
    """Rates ×ζ and all seconds ÷ζ: ΔT ÷ζ, M*, α* and ρ as before."""
    server = roomy(server)
    faster = server.model_copy(
        update={"iteration_time": _faster_clock(server.iteration_time, speed)}
    )
    first = equilibrium(workload, server, method)
    second = equilibrium(workload.scaled(speed), faster, method)
    assume(abs(first.max_scale - 1) > 1e-6)
    assert second.max_scale == pytest.approx(first.max_scale, rel=1e-6)
    assert second.utilisation == pytest.approx(first.utilisation, rel=1e-6)
    assert (first.iteration_time_s is None) == (second.iteration_time_s is None)
    times = first.first_order, second.first_order
    for left, right, power in (
        (first.kv_tokens, second.kv_tokens, 0),
        (first.iteration_time_s, second.iteration_time_s, 1),
        *((one.latency_s, other.latency_s, 1) for one, other in [times] if one),
    ):
        if left is not None:
            assert right * speed**power == pytest.approx(left, rel=1e-6)


@given(workloads(), servers(affine_times()))
def test_general_path_on_affine_f_is_the_closed_form(workload, server):
    server = roomy(server)
    closed = equilibrium(workload, server)
    assert closed.method == "closed-form"
    assume(abs(closed.max_scale - 1) > 1e-9)
    for method in ("poisson", "mean"):
        general = equilibrium(workload, server, method)
        assert general.method == method
        if closed.iteration_time_s is None:
            # ρ of a system without equilibrium keeps its linear value.
            assert general.utilisation == pytest.approx(closed.utilisation, rel=1e-9)
        _assert_same(closed, general, skip={"method", *APART})
        for left, right in zip(closed.classes, general.classes, strict=True):
            _assert_same(left, right)


def test_beyond_compute_nothing_exists():
    found = equilibrium(one_class(60.0, 512, 20), load_server("engine-long-decode"))
    assert found.utilisation > 1
    assert not found.stable
    assert found.binding == "compute"
    for name in ("iteration_time_s", "kv_tokens", "first_order", "prediction"):
        assert getattr(found, name) is None
    assert found.throughput_tokens_per_s is None
    assert found.classes[0].in_service_per_stage is None


@pytest.mark.parametrize("method", ["closed-form", "poisson", "mean"])
def test_beyond_memory_the_equilibrium_is_told_but_no_latency(method):
    tau = IterationTime.paper(0.01, 1e-7)
    server = server_of(tau, "decode", kv_capacity_tokens=5_000)
    found = equilibrium(one_class(20.0, 512, 100), server, method)
    assert found.utilisation < 1
    assert not found.stable
    assert found.binding == "memory"
    assert found.kv_tokens > found.kv_capacity_tokens
    assert found.iteration_time_s is not None
    assert found.first_order is found.prediction is None
    assert found.throughput_tokens_per_s is None
    assert found.classes[0].in_service_per_stage is None


def test_document_has_the_field_names_and_plain_values():
    found = equilibrium(one_class(5.0, 512, 20), load_server("a100-80gb-llama-2-7b"))
    document = found.document()
    fields_of = {one.name for one in fields(Equilibrium)}
    apart = {"evictions", "fluctuations", "loss", "first_order_caveats", "stages", "class_times"}
    apart |= {"limit_share", "cache"}
    added = {"ttft_s", "tpot_s", "latency_s", "prediction", "classes"}
    assert set(document) == fields_of - apart | added
    assert document["server"] == "a100-80gb-llama-2-7b"
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_figures_of_evictions_are_there_where_they_are_asked_for():
    server = load_server("paper-long-decode")
    found = equilibrium(one_class(2.0, 512, 1000), server, evictions=0.01)
    assert found.fluctuations == overflow(found.workload, server, 0.01)
    assert found.document()["fluctuations"]["probability"] == 0.01
    assert "KV exceeded in 1.00 % of iterations" in str(found)
    unstable = equilibrium(one_class(9.0, 512, 1000), server, evictions=0.01)
    assert (unstable.fluctuations, unstable.document()["fluctuations"]) == (None, None)
    assert "Fluctuations" not in str(unstable)
    with pytest.raises(InputError, match="probability: got 2"):
        equilibrium(one_class(2.0, 512, 1000), server, evictions=2)


def test_the_loss_of_full_memory_is_there_where_it_is_asked_for():
    server = load_server("engine-long-decode")
    found = equilibrium(one_class(2.0, 512, 200), server, loss=True)
    assert found.loss == predicted_loss(found.workload, server)
    assert found.document()["predicted_loss"] == found.loss.document()
    assert found.loss.sentence in str(found)
    assert "predicted_loss" not in equilibrium(one_class(2.0, 512, 200), server).document()


def test_a_curve_is_solved_once_for_all_who_ask(monkeypatch):
    workload, server = one_class(7.25, 512, 77), load_server("a100-80gb-llama-2-7b")
    found = equilibrium(workload, server)
    monkeypatch.setattr(Intake, "time_s", None)
    again = stability(Workload(**dict(workload)), server)
    assert again.max_scale == found.max_scale
    assert not again.boundary_per_stage.flags.writeable


def test_caveats_tell_each_failing_condition_with_its_number():
    few, lumps, busy = "fewer than 5", "lumps", "above 0.8"
    a100 = load_server("a100-80gb-llama-2-7b")
    for rate_per_s, words in ((1.0, [few, lumps]), (15.0, [lumps]), (25.0, [busy, lumps])):
        measured = a100.model_copy(update={"measured_range": None})
        found = equilibrium(one_class(rate_per_s, 512, 20), measured)
        caveats = found.first_order_caveats
        assert len(caveats) == 1 + len(words)
        assert "not affine" in caveats[0]
        assert all(any(word in one for one in caveats) for word in words)
        assert [one for one in found.caveats if "not affine" in one] == list(found.caveats)
    found = equilibrium(one_class(1.0, 512, 20), a100)
    residents = found.classes[0].in_service_per_stage * 20
    assert f"{residents:.2f} requests" in found.first_order_caveats[1]


def test_request_that_cannot_fit_is_refused():
    with pytest.raises(InputError) as caught:
        equilibrium(one_class(1.0, 512, 200_000), load_server("paper-lmsys"))
    assert caught.value.field == "classes[0] (only)"


@pytest.mark.parametrize("method", ["closed-form", "exact"])
def test_method_that_does_not_suit(method):
    with pytest.raises(InputError) as caught:
        equilibrium(one_class(1.0, 512, 20), load_server("a100-80gb-llama-2-7b"), method)
    assert (caught.value.field, caught.value.value) == ("method", method)
