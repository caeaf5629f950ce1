"""Latencies at low loads: the chains converge, and meet the times of one request alone."""

from __future__ import annotations

import numpy as np
import pytest

import fluidwait as fw
from fluid.stages import class_stages
from fluid.steady.intake import intake
from fluid.steady.latency.chain import same_mean
from fluid.steady.latency.predict import solve
from fluid.steady.latency.solved import Solved

PAPER, A100 = "paper-lmsys", "a100-80gb-llama-2-7b"
LOADS = {
    "short": {"a": fw.Requests(1.0, prompt=512, output=20)},
    "long": {"a": fw.Requests(1.0, prompt=200, output=1000)},
    "mix": {
        "a": fw.Requests(7.0, prompt=512, output=120),
        "b": fw.Requests(1.0, prompt=1500, output=250),
        "c": fw.Requests(2.0, prompt=100, output=600),
    },
    "decode": {"a": fw.Requests(1.0, prompt=0, context=200, output=120)},
}
WHOLE, CHUNKED = fw.BatchRule.greedy(), fw.BatchRule.vllm_v1()
PAIRS = [(PAPER, WHOLE), (A100, WHOLE), (A100, CHUNKED)]
RULES = pytest.mark.parametrize(
    ("name", "rule"), PAIRS, ids=["paper-whole", "a100-whole", "a100-chunks"]
)
EACH = pytest.mark.parametrize("load", LOADS)


def found(name: str, load: str, share: float, rule: fw.BatchRule) -> fw.Latency:
    server, workload = fw.Server.named(name), fw.Workload.of(**LOADS[load])
    limit = fw.stability(workload, server).max_scale * workload.rate_per_s
    return fw.latency(workload.at_rate(share * limit), server, rule)


def alone_s(one: fw.RequestClass, server: fw.Server) -> tuple[float, float]:
    """TTFT and latency of a request on an idle server, stage by stage."""
    stages, tau = class_stages(one, server), server.iteration_time
    prompt = stages.prefill_tokens
    seconds = [
        float(tau.token_seconds(np.array(float(max(prompt, 1)) if n == 0 else 1.0)))
        + (
            tau.per_prefill_token_s * prompt + tau.per_prefill_token_sq_s * prompt**2
            if n == 0 and prompt
            else tau.per_decode_request_s + tau.per_kv_token_s * float(stages.kv_tokens[n])
        )
        for n in range(stages.count)
    ]
    return sum(seconds[: stages.first_output + 1]), sum(seconds)


@EACH
@RULES
@pytest.mark.parametrize("share", [1e-6, 1e-3, 1e-2, 0.05, 0.3])
def test_converges_at_any_low_rate(name: str, rule: fw.BatchRule, load: str, share: float) -> None:
    answer = found(name, load, share, rule)
    assert answer.validity is not None
    assert answer.validity.converged
    assert answer.validity.scope == "all"


@EACH
@RULES
def test_meets_a_request_alone(name: str, rule: fw.BatchRule, load: str) -> None:
    server = fw.Server.named(name)
    answer = found(name, load, 1e-6, rule)
    for law, one in zip(answer.classes, answer.workload.classes, strict=True):
        ttft_s, latency_s = alone_s(one, server)
        assert law.ttft_s.mean == pytest.approx(ttft_s, rel=1e-3)
        assert law.latency_s.mean == pytest.approx(latency_s, rel=1e-3)
        assert law.tpot_s is not None
        gaps = one.decode_tokens - 1
        assert law.tpot_s.mean == pytest.approx((latency_s - ttft_s) / gaps, rel=1e-3)


@EACH
@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_keeps_the_balance_of_an_affine_server(load: str, share: float) -> None:
    """The chain's mean is d0/(1 − κ), though decoders remember for a thousand iterations."""
    server = fw.Server.named(PAPER)
    workload = found(PAPER, load, share, WHOLE).workload
    solved = solve(workload, server, WHOLE)
    balance_s = intake(workload, server).least_balance_s()
    assert isinstance(solved, Solved)
    assert balance_s is not None
    assert solved.mean_s == pytest.approx(balance_s, rel=3e-3)


def test_finds_the_mean_of_a_map_that_falls_steeply() -> None:
    """It rises by hundreds per unit assumed too little, and is flat at both ends."""
    calls = 0

    def steep(guess: float) -> float:
        nonlocal calls
        calls += 1
        return 1.0 + 0.02 * (1 + np.tanh(5e4 * (1.001 - guess)))

    mean, needed, _ = same_mean(steep, 1.002, -200.0, 40, 1e-3, 1.0)
    assert needed == calls <= 40
    assert mean == pytest.approx(1.001, abs=4e-5)
