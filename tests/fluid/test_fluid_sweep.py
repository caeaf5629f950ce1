"""Sweeps of the fluid model: a row is the model's own answer there, or says why there is none."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

import fluidwait as fw
from fluid.steady.fluid_sweep import ANSWERS, MOST_LINES, fluid_sweep
from fluid.steady.phase import PARAMETERS

SERVER = fw.Server.named("engine-long-decode")
LOAD = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))


def test_a_row_is_the_answer_at_its_point() -> None:
    found = fluid_sweep(LOAD, SERVER, of="stability", kv_tokens=[2_000, 50_000], rate=[5, 30])
    columns = found.frame()
    assert columns["kv_tokens"] == [2_000, 2_000, 50_000, 50_000]
    assert columns["rate"] == [5, 30, 5, 30]
    for row, (tokens, rate) in enumerate(zip(columns["kv_tokens"], columns["rate"], strict=True)):
        server = SERVER.changed(kv_capacity_tokens=int(tokens))
        here = fw.stability(LOAD.at_rate(rate), server)
        assert columns["margin"][row] == here.margin
        assert columns["binding"][row] == here.binding
        assert columns["largest_rate_per_s"][row] == pytest.approx(here.max_scale * rate)


def test_equilibrium_comes_with_the_times_of_the_scheduler() -> None:
    scheduler = "vllm-v1:max_num_batched_tokens=2048,max_num_seqs=256"
    found = fluid_sweep(LOAD, SERVER, scheduler=scheduler, rate=[7, 50]).frame()
    here = fw.equilibrium(LOAD, SERVER, scheduler=scheduler)
    assert found["iteration_time_s"][0] == here.iteration_time_s
    assert found["kv_held_tokens"][0] == here.kv_tokens
    pooled = here.prediction.latency.pooled
    assert found["ttft_p99_s"] == [pooled.ttft_s.p99, None]
    assert found["why"][0] is None
    assert found["why"][1] == fw.equilibrium(LOAD.at_rate(50), SERVER).sentence
    times = fluid_sweep(LOAD, SERVER, of="latency", scheduler=scheduler, rate=7).frame()
    assert times["latency_p90_s"] == [pooled.latency_s.p90]


def test_what_the_model_refuses_is_a_row() -> None:
    found = fluid_sweep(LOAD, SERVER, kv_tokens=[600, 50_000], of="fluctuation", rate=[5, 40])
    columns = found.frame()
    assert [one is None for one in columns["kv_sd_tokens"]] == [True, True, False, True]
    assert "640 KV tokens" in columns["why"][0]
    assert "multiply all rates" in columns["why"][3]
    assert columns["why"][2] is None
    assert "2 of 4 points lack figures: classes[0] (chat)" in str(found)


@pytest.mark.parametrize("of", ANSWERS)
def test_every_answer_has_figures(of: str) -> None:
    found = fluid_sweep(LOAD, SERVER, of=of, rate=5)
    assert found.figures
    assert found.of == of


def test_a_function_of_ones_own() -> None:
    def twice(load: fw.Workload, server: fw.Server) -> np.float64:
        return np.float64(2 * load.rate_per_s)

    assert fluid_sweep(LOAD, SERVER, of=twice, rate=[1, 2]).frame() == {
        "rate": [1, 2],
        "value": [2, 4],
        "why": [None, None],
    }
    named = fluid_sweep(LOAD, SERVER, of=lambda load, server: {"tokens": 3}, rate=[1])
    assert named.figures == ("tokens",)
    result = fluid_sweep(LOAD, SERVER, of=lambda *here: fw.capacity(*here, "rate"), rate=[1])
    assert result.frame()["value"] == [fw.capacity(LOAD.at_rate(1), SERVER, "rate").value]
    with pytest.raises(TypeError, match="numbers by name"):
        fluid_sweep(LOAD, SERVER, of=lambda *here: here, rate=[1])


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_can_be_swept(name: str) -> None:
    today = {"kv_tokens": 50_000, "overhead_s": 0.01, "per_kv_token_s": 1e-7}.get(name, 1.5)
    margins = fluid_sweep(LOAD, SERVER, of="stability", **{name: [today, 1.1 * today]})
    low, high = margins.frame()["margin"]
    assert (high > low) if name == "kv_tokens" else (high < low)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"rates": [1]}, "did you mean rate"),
        ({}, "values of one or more of rate"),
        ({"rate": []}, "one or more numbers > 0"),
        ({"kv_tokens": [-5]}, "one or more numbers > 0"),
        ({"kv_tokens": [3]}, "at least one block"),
        ({"rate": "fast"}, "numbers"),
        ({"rate": 1, "of": "stabilty"}, "did you mean stability"),
        ({"rate": 1, "of": "stability", "scheduler": "greedy"}, "only with equilibrium, latency"),
        ({"rate": 1, "scheduler": "gredy"}, "did you mean greedy"),
        ({"rate": np.arange(1, 1_000), "kv_tokens": np.arange(1, 1_000)}, "at most 100,000"),
    ],
)
def test_what_cannot_be_asked(asked: dict[str, object], message: str) -> None:
    with pytest.raises(fw.InputError, match=message):
        fw.sweep(LOAD, SERVER, **asked)


def test_policies_and_parameters_do_not_mix() -> None:
    with pytest.raises(TypeError, match="kv_tokens"):
        fw.sweep(LOAD, SERVER, "greedy", kv_tokens=[1_000])
    tape = fw.Tape([0.0, 1.0], [10, 10], [5, 5])
    with pytest.raises(fw.InputError, match="policies to simulate"):
        fw.sweep(tape, SERVER, rate=[1])


def test_a_picture_has_a_line_for_each_value_of_the_others_and_gaps() -> None:
    found = fluid_sweep(LOAD, SERVER, of="stability", rate=[5, 20, 600], kv_tokens=[500, 5_000])
    axes = found.plot(Figure().subplots(), figure="memory_share")
    assert [line.get_label() for line in axes.lines] == ["kv_tokens 500", "kv_tokens 5,000"]
    gap, whole = (line.get_ydata() for line in axes.lines)
    assert np.isnan(gap).all()
    assert np.isfinite(whole).all()
    assert axes.get_xscale() == "log"
    with pytest.raises(fw.InputError, match="one of margin, max_scale"):
        found.plot(figure="binding")
    many = np.arange(1, MOST_LINES + 2)
    found = fluid_sweep(LOAD, SERVER, of="stability", rate=[1, 2], output_factor=many)
    with pytest.raises(fw.InputError, match="fewer values"):
        found.plot()
