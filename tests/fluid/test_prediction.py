"""What users see of the latency laws: schedulers by name, figures, and sentences without them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from matplotlib import pyplot as plt

from fluid.errors import InputError
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.steady.latency.predict import latency
from fluid.steady.latency.result import Figures
from fluid.steady.latency.rule import BatchRule
from fluid.steady.latency.scheduler import batch_rule
from fluid.steady.latency.validity import Validity
from fluid.steady.latency_by_rate import latency_by_rate
from fluid.steady.overflow import overflow
from fluid.steady.prediction import overflow_by_law, predict, trust
from fluid.workload import Requests, Workload

A100, PAPER = Server.named("a100-80gb-llama-2-7b"), Server.named("paper-long-decode")
PAIR = Workload.of(
    "chat-and-code",
    chat=Requests(7.0, prompt=512, output=120),
    code=Requests(1.0, prompt=2048, output=250),
)
LONG = Workload.of(long=Requests(2.6, prompt=512, output=1000))


def test_schedulers_have_the_names_and_parameters_of_rules() -> None:
    assert batch_rule("greedy") == BatchRule.greedy()
    assert batch_rule("greedy:cap=9,watermark=0.05") == BatchRule.greedy(9, 0.05)
    assert batch_rule("vllm-v1:max_num_batched_tokens=4096") == BatchRule.vllm_v1(4096)
    assert batch_rule("sarathi:chunk=256,cap=64") == BatchRule.sarathi(256, 64)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("best", "scheduler: got 'best'; allowed: one of greedy, vllm-v1, sarathi"),
        ("greedy:pace=1", "got 'greedy:pace=1'; allowed: cap, watermark as key=value"),
        ("greedy:cap", "got 'greedy:cap'; allowed: cap as a whole number"),
        ("greedy:watermark=x", "got 'greedy:watermark=x'; allowed: watermark as a number"),
        ("greedy:watermark=2", "watermark_fraction from 0 to below 1"),
        ("vllm-v1:max_num_batched_tokens=0", "budget_tokens at least 1, or None"),
    ],
)
def test_bad_schedulers(text: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        equilibrium(PAIR, A100, scheduler=text)
    assert caught.value.field == "scheduler"
    assert told in str(caught.value)


def test_chunks_need_a_server_whose_prefill_emits() -> None:
    with pytest.raises(InputError, match="scheduler: got 'vllm-v1'; allowed: greedy, as"):
        equilibrium(LONG, PAPER, scheduler="vllm-v1")


@pytest.mark.parametrize("scheduler", ["greedy", "vllm-v1"])
def test_an_equilibrium_says_what_the_laws_say(scheduler: str) -> None:
    found = equilibrium(PAIR, A100, scheduler=scheduler)
    law = latency(PAIR, A100, batch_rule(scheduler))
    assert law.pooled is not None
    assert found.first_order is not None
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    for name in ("ttft_s", "tpot_s", "latency_s"):
        assert document[name] == getattr(law.pooled, name).mean
        assert document[name] > getattr(found.first_order, name) == document["first_order"][name]
        means = [getattr(one, name).mean for one in law.classes]
        assert [one[name] for one in document["classes"]] == found.frame()[name] == means
    assert document["prediction"]["scheduler"] == scheduler
    assert document["prediction"]["ttft_s"]["p99"] == law.pooled.ttft_s.p99
    assert set(document["prediction"]["caveats"]) <= set(document["caveats"])
    text = str(found)
    assert f"Latency under {scheduler}, seconds" in text
    assert "0.09286" not in text, "the first order is no prediction"
    assert ("(ρ_c)" in text) == (scheduler == "vllm-v1")


def test_where_memory_is_full_there_are_no_figures_but_a_reason() -> None:
    found = equilibrium(LONG, PAPER)
    assert found.prediction is not None
    (line,) = [one for one in str(found).splitlines() if one.startswith("No latencies")]
    assert "memory is full" in line
    assert "fluidwait compare" in line
    document = found.document()
    assert document["ttft_s"] is document["latency_s"] is document["prediction"]["ttft_s"] is None
    assert document["first_order"]["latency_s"] > 40
    assert found.frame()["latency_s"] == [None]
    assert found.prediction.eviction_onset_per_s < LONG.rate_per_s


def test_an_unstable_load_has_none() -> None:
    found = equilibrium(LONG.scaled(2), PAPER)
    assert found.prediction is None
    assert "No latencies: the queue of an unstable load grows for ever." in str(found)
    assert found.document()["prediction"] is found.document()["ttft_s"] is None


def test_where_memory_never_fills_no_onset_is_told() -> None:
    """The budget is used up first, at a rate at which nobody is evicted yet."""
    single = Workload.of(single=Requests(90.0, prompt=100, output=1))
    found = equilibrium(single, A100, scheduler="vllm-v1").prediction
    assert found is not None
    assert found.eviction_onset_per_s is None
    assert "hardly anybody is evicted at any rate that can be served" in str(found)
    at_most = equilibrium(PAIR, A100).prediction
    assert at_most is not None
    assert at_most.eviction_onset_per_s == pytest.approx(8.0, rel=0.05)


def test_a_load_beyond_the_token_budget() -> None:
    found = equilibrium(PAIR, A100, scheduler="vllm-v1:max_num_batched_tokens=60")
    assert "of the token budget; simulate" in str(found)


def test_thousands_of_classes_are_not_waited_for() -> None:
    classes = {f"c{k}": Requests(0.001, prompt=60, output=k + 1) for k in range(201)}
    found = equilibrium(Workload.of(**classes), PAPER)
    assert (
        "No latencies under greedy: 201 classes, and the laws are asked about 200 at most;"
        in str(found)
    )
    assert found.document()["latency_s"] is None


def valid(**changed: float) -> Validity:
    fine = {
        "overflow_probability": 1e-9,
        "utilisation": 0.5,
        "budget_share": None,
        "budget_full_share": 0.0,
        "relative_spread": 0.5,
        "seats_probability": 0.0,
        "converged": True,
    }
    return Validity(**fine | changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("validity", "told"),
    [
        (valid(), "within 5 %, p90 and p99 within 15 %"),
        (valid(utilisation=0.9), "within 10 %, p90 and p99 within 30 %"),
        (valid(relative_spread=1.2), "within 10 %, p90 and p99 within 30 %"),
        (valid(overflow_probability=5e-4), "within 5 %; take p90 and p99 from a simulation"),
        (valid(overflow_probability=5e-3), "Do not rely on these latencies"),
    ],
)
def test_how_far_off_is_said(validity: Validity, told: str) -> None:
    assert told in trust(validity)


def test_overflows_of_any_server() -> None:
    """Where THEORY 2.7 knows them too, the two agree."""
    load = LONG.at_rate(2.0)
    law, known = overflow_by_law(load, PAPER, 0.01), overflow(load, PAPER, 0.01)
    assert law.kv_mean_tokens == pytest.approx(known.kv_mean_tokens, rel=0.01)
    assert law.kv_sd_tokens == pytest.approx(known.kv_sd_tokens, rel=0.02)
    assert law.kv_tokens_needed == pytest.approx(known.kv_tokens_needed, rel=0.02)
    assert law.eviction_onset_per_s == pytest.approx(known.eviction_onset_per_s, rel=0.02)
    assert law.latency_s == pytest.approx(known.latency_s, rel=0.01)
    chunked = "vllm-v1:max_num_batched_tokens=4096"
    assert equilibrium(load, PAPER, evictions=0.01).fluctuations == known
    assert equilibrium(PAIR, A100, evictions=0.01).fluctuations == overflow_by_law(PAIR, A100, 0.01)
    found = equilibrium(PAIR, A100, scheduler=chunked, evictions=0.01)
    assert found.fluctuations == overflow_by_law(PAIR, A100, 0.01, chunked)


@dataclass(frozen=True)
class Point:
    """A simulated rate, as `compare` gives it."""

    rate_per_s: float
    ttft_s: Figures | None
    tpot_s: Figures | None
    latency_s: Figures | None


def test_curves_end_where_no_law_holds() -> None:
    found = latency_by_rate(LONG, PAPER, shares=(0.3, 0.6, 0.95, 0.97))
    assert [one.pooled is None for one in found.found] == [False, False, True]
    assert found.ends is not None
    assert "memory is full" in str(found)
    columns = found.frame()
    assert columns["rate_per_s"] == pytest.approx(
        [0.3 * found.limit_per_s, 0.6 * found.limit_per_s]
    )
    assert columns["latency_mean_s"][0] < columns["latency_mean_s"][1]
    assert predict(LONG.at_rate(columns["rate_per_s"][1]), PAPER).mean_s("ttft_s") == (
        pytest.approx(columns["ttft_mean_s"][1])
    )
    full = latency_by_rate(LONG, PAPER, shares=(0.99,))
    assert full.frame()["ttft_p99_s"] == []
    assert "no law from" in full.plot().get_legend().get_texts()[-1].get_text()
    plt.close("all")


def test_the_picture_shows_bands_and_what_was_simulated() -> None:
    found = latency_by_rate(LONG, PAPER, shares=(0.3, 0.6))
    times = Figures(0.5, 0.4, 0.8, 1.0)
    point = Point(1.0, times, None, times)
    plain, beside = found.plot(), found.plot(simulated=[point])
    assert len(plain.collections) == 3
    assert len(beside.containers) == 2
    assert [one.get_label() for one in plain.lines][-1] == "stability boundary"
    assert found.frame()["scope"] == ["all", "all"]


def test_what_is_not_to_be_relied_on_is_crossed_out() -> None:
    found = latency_by_rate(LONG, PAPER, shares=(0.3, 0.89))
    assert found.frame()["scope"] == ["all", "nothing"]
    axes = found.plot()
    assert [one.get_marker() for one in axes.lines].count("x") == 3 + 1
    assert "do not rely on these" in [one.get_label() for one in axes.lines]
    plt.close("all")
