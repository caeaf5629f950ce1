"""What the explorer shows is what the fluid functions say, live, from a grid and as code."""

from __future__ import annotations

import itertools
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.explorer.grid import FACTOR_LEVELS, Grid
from fluid.explorer.notebook import region_explorer
from fluid.explorer.page import page
from fluid.explorer.serve import explorer_server
from fluid.explorer.state import CURVE, Explorer, Setting, levels
from fluid.server import load_server
from fluid.steady.equilibrium import equilibrium
from fluid.steady.region import StabilityRegion
from fluid.steady.stability import stability
from fluid.workload import Requests, Workload

AFFINE = load_server("engine-long-decode")
STAIRCASE = load_server("a100-80gb-llama-2-7b")
PAIR = Workload.of("pair", chat=Requests(2.0, 512, 200), report=Requests(0.5, 512, 1000))
THREE = Workload.of(
    "three", chat=Requests(2.0, 512, 200), report=Requests(0.5, 512, 1000), code=Requests(1, 900, 9)
)


def setting(explorer: Explorer, **changes: Any) -> Setting:
    return Setting.from_document(explorer.start.document() | changes)


def test_a_setting_changes_what_its_names_say() -> None:
    explorer = Explorer(PAIR, (STAIRCASE, AFFINE))
    asked = setting(
        explorer,
        server=1,
        rates_per_s=[3, 1],
        prompt_factor=0.5,
        output_factor=2.0,
        memory_factor=0.5,
        overhead_factor=3.0,
    )
    load, server = explorer.load(asked)
    assert load.rates_per_s.tolist() == [3.0, 1.0]
    assert [one.prefill_tokens for one in load.classes] == [256, 256]
    assert [one.decode_tokens for one in load.classes] == [400, 2000]
    assert server.kv_capacity_tokens == AFFINE.kv_capacity_tokens // 2
    overhead_s = AFFINE.iteration_time.overhead_s
    assert server.iteration_time.overhead_s == pytest.approx(3 * overhead_s)
    assert explorer.load(explorer.start) == (PAIR, STAIRCASE)


@pytest.mark.parametrize("server", [AFFINE, STAIRCASE], ids=["affine", "staircase"])
@pytest.mark.parametrize("rates", [[1.0, 0.5], [9.0, 4.0]])
def test_margin_and_boundary_are_those_of_the_region(server: Any, rates: list[float]) -> None:
    explorer = Explorer(PAIR, (server,))
    asked = setting(explorer, rates_per_s=rates, output_factor=0.5)
    found = explorer.region(asked)
    load, changed = explorer.load(asked)
    exact = stability(load, changed)
    assert (found["stable"], found["binding"]) == (exact.stable, exact.binding)
    assert found["margin"] == exact.margin
    assert found["limit_per_s"] == pytest.approx(exact.max_scale * sum(rates))
    assert found["pace_per_iteration"] == pytest.approx(exact.boundary_per_stage.sum())
    region = StabilityRegion(load, changed)
    reached = [region.reach(one) for one in found["boundary_per_s"][::4]]
    np.testing.assert_allclose(reached, 1, rtol=1e-9)
    across = explorer.region(asked.model_copy(update={"axes": (1, 0)}))["boundary_per_s"]
    assert across == [one[::-1] for one in found["boundary_per_s"]]


@pytest.mark.parametrize("server", [AFFINE, STAIRCASE], ids=["affine", "staircase"])
def test_three_classes_are_a_slice(server: Any) -> None:
    explorer = Explorer(THREE, (server,))
    found = explorer.region(setting(explorer, axes=[2, 0]))
    region = StabilityRegion(THREE, server)
    for code, chat in found["boundary_per_s"]:
        assert region.reach([chat, 0.5, code]) == pytest.approx(1, rel=1e-6)
    beyond = setting(explorer, rates_per_s=[1.0, 50.0, 1.0], axes=[2, 0])
    assert explorer.region(beyond)["boundary_per_s"] == []
    assert explorer.region(beyond)["stable"] is False


def test_one_class_is_a_line() -> None:
    one = Workload.of(chat=Requests(2.0, 512, 200))
    explorer = Explorer(one, (AFFINE,))
    ((most,),) = explorer.region(explorer.start)["boundary_per_s"]
    assert most == pytest.approx(stability(one, AFFINE).max_scale * 2.0)


def test_latencies_are_those_of_the_equilibrium() -> None:
    explorer = Explorer(PAIR, (STAIRCASE,))
    now, later = explorer.latency(explorer.start), explorer.latency(explorer.start, CURVE[2])
    predicted = equilibrium(PAIR, STAIRCASE).prediction
    assert predicted is not None
    pooled = predicted.latency.pooled
    assert pooled is not None
    assert now["ttft_p99_s"] == pooled.ttft_s.p99
    assert now["ttft_mean_s"] == pooled.ttft_s.mean
    limit = explorer.region(explorer.start)["limit_per_s"]
    assert later["rate_per_s"] == pytest.approx(CURVE[2] * limit)
    beyond = explorer.latency(setting(explorer, rates_per_s=[90.0, 9.0]))
    assert "more work than the server can do" in beyond["refusal"]


@pytest.mark.parametrize("server", [AFFINE, STAIRCASE], ids=["affine", "staircase"])
def test_the_code_makes_the_same_state(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    explorer = Explorer(PAIR, (server,))
    changes = {"rates_per_s": [1.25, 0.75], "prompt_factor": 1.5, "overhead_factor": 0.9}
    for asked in (explorer.start, setting(explorer, **changes, memory_factor=0.5)):
        found = explorer.region(asked)
        names: dict[str, Any] = {}
        exec(found["code"], names)
        assert "STABLE" in capsys.readouterr().out
        made = stability(names["load"], names["server"])
        assert made.margin == found["margin"]
        expected = explorer.load(asked)[1].iteration_time
        assert names["server"].iteration_time == expected
    assert "Server.named('" in explorer.region(explorer.start)["code"]


def test_a_request_that_no_longer_fits_is_said_and_not_raised() -> None:
    explorer = Explorer(PAIR, (AFFINE,))
    found = explorer.region(setting(explorer, memory_factor=0.005))
    assert "classes[0] (chat)" in found["refusal"]
    assert "boundary_per_s" not in found
    assert "refusal" in explorer.latency(setting(explorer, memory_factor=0.005))


def test_what_is_refused() -> None:
    many = Workload.of(**{f"c{k}": Requests(1.0, 9, 9) for k in range(13)})
    with pytest.raises(InputError, match="classes: got 13; allowed: at most 12"):
        Explorer(many, (AFFINE,))
    with pytest.raises(InputError, match=r"classes\[0\] \(chat\): got 'a shared prefix'"):
        Explorer(Workload.of(chat=Requests(1.0, 64, 9, shared_prefix=32)), (AFFINE,))
    with pytest.raises(InputError, match="servers"):
        Explorer(PAIR, ())
    explorer = Explorer(PAIR, (AFFINE,))
    for changes, told in (
        ({"rates_per_s": [1.0]}, "rates_per_s: got 1; allowed: 2 rates"),
        ({"server": 1}, "server: got 1"),
        ({"axes": [0, 2]}, "axes"),
        ({"axes": [0, 0]}, "axes"),
    ):
        with pytest.raises(InputError, match=told):
            explorer.load(setting(explorer, **changes))
    with pytest.raises(InputError, match="about"):
        explorer.answer({"about": "weather", "setting": explorer.start.document()})


def test_sliders_stand_where_the_load_is() -> None:
    known = Explorer(PAIR, (AFFINE,)).known
    for rate, steps in zip([2.0, 0.5], known["rate_levels"], strict=True):
        assert rate in steps
        assert steps == sorted(steps)
    assert levels(1.0, 0.1, 10.0)[::100] == pytest.approx([0.1, 1.0, 10.0])


def test_a_grid_holds_what_the_explorer_answers() -> None:
    explorer = Explorer(PAIR, (AFFINE,))
    grid = Grid(
        explorer,
        ratio=1.5,
        rate_levels=((2.0 / 1.5, 2.0, 3.0), (0.5, 0.75)),
        factor_levels={
            "prompt_factor": (1.0,),
            "output_factor": FACTOR_LEVELS[1:],
            "memory_factor": FACTOR_LEVELS[:2],
            "overhead_factor": (1.0,),
        },
    )
    document = json.loads(json.dumps(grid.document(), allow_nan=False))
    combinations = list(itertools.product(*grid.factor_levels.values()))
    assert len(document["combinations"]) == 4
    assert set(document["latencies"]) == {"0", "1", "3"}
    for index, factors in enumerate(combinations):
        changes = dict(zip(grid.factor_levels, factors, strict=True))
        for cell, rates in enumerate(itertools.product(*grid.rate_levels)):
            asked = setting(explorer, **changes, rates_per_s=list(rates))
            exact, kept = explorer.region(asked), document["combinations"][index]
            for name in ("max_scale", "pace_per_iteration", "boundary_iteration_s"):
                assert kept[name][cell] == pytest.approx(exact[name], rel=1e-4)
            assert kept["binding"][cell] == exact["binding"]
    region = StabilityRegion(PAIR, AFFINE)
    loads = region.loads(document["combinations"][1]["boundary_per_s"])
    assert loads.tolist() == pytest.approx([1.0] * 6, rel=1e-4)
    last = explorer.latency(setting(explorer, rates_per_s=[3.0, 0.75], memory_factor=0.5))
    row = document["latencies"]["0"][-1]
    assert row["ttft_p99_s"] == pytest.approx(last["ttft_p99_s"], rel=1e-4)


def test_levels_of_a_grid() -> None:
    whole = Grid.of(Explorer(PAIR, (AFFINE,)))
    assert len(list(itertools.product(*whole.factor_levels.values()))) == 81
    for rate, steps, most in zip(
        [2.0, 0.5], whole.rate_levels, whole.explorer.known["most_per_s"], strict=True
    ):
        assert rate in steps
        assert steps[-1] >= most * (1 - 1e-9)
    slices = Grid.of(Explorer(THREE, (AFFINE,)))
    assert slices.rate_levels[2] == (1.0,)
    assert slices.factor_levels["overhead_factor"] == (1.0,)


@pytest.fixture
def address() -> Iterator[str]:
    with explorer_server(Explorer(PAIR, (AFFINE,))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_server_answers_and_refuses(address: str) -> None:
    explorer = Explorer(PAIR, (AFFINE,))
    question = {"about": "region", "setting": explorer.start.document()}
    asked = f"{address}/answer?question={quote(json.dumps(question))}"
    with urllib.request.urlopen(asked) as reply:
        found = json.loads(reply.read())
    assert found["margin"] == explorer.region(explorer.start)["margin"]
    with urllib.request.urlopen(f"{address}/") as reply:
        shown = reply.read().decode()
    assert shown == page(explorer)
    for wrong, code in (
        ("answer", 400),
        ("answer?question=no", 400),
        ("answer?question=3", 400),
        ("answer?question={}", 400),
        ("else", 404),
    ):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{address}/{wrong}")
        assert error.value.code == code
        error.value.close()


def test_the_page_needs_nothing_from_elsewhere_and_no_name_ends_it() -> None:
    load = PAIR.model_copy(update={"name": "</script><b>"})
    text = page(Explorer(load, (AFFINE,)))
    assert "<b>" not in text
    assert text.count("</script>") == 2
    assert "src=" not in text
    assert text.replace("http://www.w3.org/2000/svg", "").count("http") == 0


def test_the_widget_sends_answers_with_the_numbers_of_questions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    widget = region_explorer(PAIR, AFFINE)
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(widget, "send", sent.append)
    right = {"about": "region", "setting": widget.explorer.start.document()}
    for number, question in (("a-1", right), ("a-2", {})):
        widget._handle_custom_msg({"number": number, "question": question}, [])
    assert [one["number"] for one in sent] == ["a-1", "a-2"]
    assert sent[0]["answer"] == widget.explorer.region(widget.explorer.start)
    assert "about" in sent[1]["answer"]["refusal"]
    assert "mount(" in widget._esm
