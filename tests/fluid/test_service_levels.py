"""Service levels as data: whose they are, and the least that an empty server takes."""

from __future__ import annotations

import math

import pytest

from fluid.errors import InfeasibleError
from fluid.overload.queue_for_limit import queue_for_limit
from fluid.server import Server
from fluid.service_levels import least_s, promises, require_possible
from fluid.steady.latency.predict import latency
from fluid.steady.latency.promised import promised_rate
from fluid.steady.latency.rule import BatchRule
from fluid.workload import Requests, Slo, Workload

ENGINE, PAPER = Server.named("engine-long-decode"), Server.named("paper-long-decode")


def test_a_percentile_is_a_share() -> None:
    for text, share in (("p99", 0.99), ("p99.9", 0.999), ("p5", 0.05), (0.9, 0.9)):
        slo = Slo.from_document({"ttft_s": 1.0, "quantile": text})
        assert slo.quantile == pytest.approx(share)
    assert Slo(ttft_s=1.0, quantile=0.999).words == "p99.9"
    assert Slo(ttft_s=1.0, quantile="mean").words == "mean"


def test_levels_of_a_workload_are_those_of_classes_without_their_own() -> None:
    own, shared = Slo(tpot_s=0.05), Slo(ttft_s=1.0, quantile="p95")
    load = Workload.of(
        a=Requests(1.0, 64, 20, slo=own), b=Requests(1.0, 64, 20), c=Requests(1.0, 64, 20)
    )
    assert [one.name for one in promises(load)] == ["a"]
    both = load.model_copy(update={"slo": shared})
    assert [(one.name, one.classes) for one in promises(both)] == [("a", (0,)), ("all", (1, 2))]
    nothing = load.model_copy(update={"slo": Slo(), "classes": load.classes[1:]})
    assert promises(nothing) == ()
    assert Workload.from_document(both.document()) == both


@pytest.mark.parametrize("server", [ENGINE, PAPER], ids=lambda one: one.name)
def test_the_least_times_are_those_of_one_request_stage_by_stage(server: Server) -> None:
    tau, prompt, outputs = server.iteration_time, 300, 7
    clock, emitted, seconds = 0.0, [], float(tau(prompt, prefill_tokens=prompt))
    clock += seconds
    if server.first_token == "prefill":
        emitted.append(clock)
    known = prompt
    while len(emitted) < outputs:
        known += 1
        clock += float(tau(1, kv_tokens=known, decode_requests=1))
        emitted.append(clock)
    found = least_s(Requests(1.0, prompt, outputs).named("one"), server)
    assert found["ttft_s"] == pytest.approx(emitted[0])
    assert found["latency_s"] == pytest.approx(emitted[-1])
    assert found["tpot_s"] == pytest.approx((emitted[-1] - emitted[0]) / (outputs - 1))
    assert "tpot_s" not in least_s(Requests(1.0, prompt, 1).named("one"), server)


def test_a_limit_that_nobody_can_keep_is_refused_with_the_least() -> None:
    least = least_s(Requests(1.0, 512, 50).named("a"), ENGINE)
    for name, seconds in least.items():
        for factor in (0.99, 1.01):
            slo = Slo.model_validate({name: factor * seconds})
            load = Workload.of(a=Requests(1.0, 512, 50, slo=slo))
            if factor > 1:
                require_possible(load, ENGINE)
                continue
            with pytest.raises(InfeasibleError, match=f"least possible is {seconds:.4g} s"):
                require_possible(load, ENGINE)


def test_the_promised_rate_is_where_the_laws_reach_the_limit() -> None:
    rule = BatchRule.greedy()
    load = Workload.of(chat=Requests(10.0, 512, 120))
    law = latency(load, ENGINE, rule).pooled
    assert law is not None
    assert law.tpot_s is not None
    for slo in (
        Slo(ttft_s=law.ttft_s.p99),
        Slo(tpot_s=law.tpot_s.p90, quantile=0.9),
        Slo(latency_s=law.latency_s.mean, quantile="mean"),
    ):
        found = promised_rate(load.model_copy(update={"slo": slo}), ENGINE, rule)
        assert found is not None
        assert found.known
        assert found.rate_per_s == pytest.approx(10.0, rel=0.02)
    loose = promised_rate(load.model_copy(update={"slo": Slo(ttft_s=1e6)}), ENGINE, rule)
    assert loose is None or not loose.known


def test_the_queue_that_a_limit_leaves() -> None:
    """THEORY 12.1 backwards: the bound that is found has the limit as its wait."""
    slo = Slo(ttft_s=6.0)
    load = Workload.of(
        a=Requests(2.0, 512, 20, slo=slo), b=Requests(1.0, 1024, 300, slo=Slo(ttft_s=9.0))
    )
    found = queue_for_limit(load, ENGINE)
    assert (found.name, found.limit_s) == ("a", 6.0)
    spread = demand_spread(load)
    for more, within in ((0, True), (1, False)):
        requests = found.requests + more
        wait_s = (requests + 2.3263478740408408 * spread * math.sqrt(requests)) / (
            found.saturated_per_s
        )
        assert (wait_s + found.first_s <= 6.0) is within
    slower = queue_for_limit(load, ENGINE, saturated_per_s=0.5 * found.saturated_per_s)
    assert slower.requests < 0.5 * found.requests
    means = load.model_copy(
        update={
            "classes": tuple(
                one.model_copy(update={"slo": Slo(ttft_s=6.0, quantile="mean")})
                for one in load.classes
            )
        }
    )
    mean = queue_for_limit(means, ENGINE)
    assert mean.requests == math.floor(mean.saturated_per_s * (6.0 - mean.first_s) + 0.5)


def demand_spread(load: Workload) -> float:
    """c: what a request takes of this affine server at its edge, a = w + d0·m/C, over the mix."""
    tau, efforts = ENGINE.iteration_time, []
    for one in load.classes:
        lengths = [one.prefill_tokens + s for s in range(one.decode_tokens)]
        blocks = [-(-length // 16) * 16 for length in lengths]
        tokens = one.prefill_tokens + one.decode_tokens - 1
        work = tau.last_slope_s * tokens + tau.per_kv_token_s * sum(lengths[1:])
        efforts.append(work + tau.overhead_s * sum(blocks) / ENGINE.usable_kv_tokens)
    mean = sum(share * effort for share, effort in zip(load.shares, efforts, strict=True))
    second = sum(share * effort**2 for share, effort in zip(load.shares, efforts, strict=True))
    return math.sqrt(second / mean**2 - 1)
